// attention_cross: the rows of a decoder's sequences see all that the encoder made of their
// sequence's input, as cross_append stored it. Prompts and generated tokens alike.
//
//   q: [T, H*D]; encoder_input_lengths, query_start, query_length: i32 [S]; kv_cache_block_offsets:
//   i32 [groups, S, M]; the layer's cross KV cache (state)
//   -> out: q's type [T, H*Dv]; rows that no sequence owns are neither read nor written
//
// Query head h uses KV head h / (H/G): softmax over keys j < encoder_input_lengths[s] of
// scale * q . k_j, then the sum of the v_j. The cache is read only. Nothing is read on the host, so
// that launches can be captured.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AttentionCross {
  static constexpr std::string_view kName = "attention_cross";
  int heads = 0;        // H
  int kv_heads = 0;     // G
  int head_size = 0;    // D, of Q and K
  int v_head_size = 0;  // Dv
  double scale = 0;     // of the logits
  bool operator==(const AttentionCross&) const = default;
  static constexpr auto fields() {
    using A = AttentionCross;
    return std::tuple{Field{"heads", &A::heads}, Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size}, Field{"v_head_size", &A::v_head_size},
                      Field{"scale", &A::scale}};
  }
};

}  // namespace millrace::ops
