// attention_encoder: attention in which every row of a sequence sees all rows of that sequence: K
// and V are those of this step, nothing is stored.
//
//   q: [T, H*D], k: [T, G*D], v: [T, G*Dv], one float type; query_start, query_length: i32 [S], the
//   rows of each sequence (ops/common/sequence_inputs.h); bias: float [relative_buckets, H] if
//   relative_buckets > 0
//   -> out: q's type [T, H*Dv]; rows that no sequence owns are neither read nor written
//
// Query head h uses KV head h / (H/G):
//   p = softmax over the sequence's rows j of (scale * q_i . k_j + bias[bucket(j - i), h]),
//   out_i = sum_j p_ij v_j
// where bucket is that of ops/common/relative_position.h, bidirectional.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AttentionEncoder {
  static constexpr std::string_view kName = "attention_encoder";
  int heads = 0;             // H
  int kv_heads = 0;          // G
  int head_size = 0;         // D, of Q and K
  int v_head_size = 0;       // Dv
  double scale = 0;          // of the logits
  int relative_buckets = 0;  // of T5's position bias; 0: none
  int relative_max_distance = 128;
  bool operator==(const AttentionEncoder&) const = default;
  static constexpr auto fields() {
    using A = AttentionEncoder;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size},
                      Field{"v_head_size", &A::v_head_size},
                      Field{"scale", &A::scale},
                      Field{"relative_buckets", &A::relative_buckets},
                      Field{"relative_max_distance", &A::relative_max_distance}};
  }
};

}  // namespace millrace::ops
