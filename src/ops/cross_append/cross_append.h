// cross_append: stores what a decoder layer's cross attention reads: the K and V rows that were
// made of the encoder's output, once, when a sequence begins.
//
//   k: [T, G*D], v: [T, G*Dv], one float type; query_start, query_length: i32 [S], the encoder's
//   rows of each sequence; kv_cache_block_offsets: i32 [groups, S, M]; the layer's cross KV cache
//   (state)
//   -> the cache after the step (state): row i of a sequence is at position i
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct CrossAppend {
  static constexpr std::string_view kName = "cross_append";
  int kv_heads = 0;     // G
  int head_size = 0;    // D
  int v_head_size = 0;  // Dv
  bool operator==(const CrossAppend&) const = default;
  static constexpr auto fields() {
    using A = CrossAppend;
    return std::tuple{Field{"kv_heads", &A::kv_heads}, Field{"head_size", &A::head_size},
                      Field{"v_head_size", &A::v_head_size}};
  }
};

}  // namespace millrace::ops
