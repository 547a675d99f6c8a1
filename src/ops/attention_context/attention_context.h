// attention_context: attention of the sequences in the context phase (host_request_types 0, they
// come first), whose new tokens follow what is cached already: a whole prompt, a chunk of one, or
// the rest after a reused prefix.
//
//   q: [T, H*D] rotated; the sequence inputs; the layer's KV cache (state), this step's K and V in
//   it; then, if asked for, sink_logits: float [H], and relative_bias: float [relative_buckets, H]
//   -> out: q's type [T, H*Dv]; only rows of context sequences are written
//
// The formula is attention's (ops/attention/attention.h): softmax and sums in float over K and V as
// stored.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AttentionContext {
  static constexpr std::string_view kName = "attention_context";
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int v_head_size = 0;
  double scale = 0;
  int window = 0;
  int sink_tokens = 0;
  double softcap = 0;
  double alibi_max_bias = 0;
  bool alibi_bf16 = false;
  bool sink_logits = false;
  int relative_buckets = 0;
  int relative_max_distance = 0;
  bool operator==(const AttentionContext&) const = default;
  static constexpr auto fields() {
    using A = AttentionContext;
    return std::tuple{Field{"heads", &A::heads},
                      Field{"kv_heads", &A::kv_heads},
                      Field{"head_size", &A::head_size},
                      Field{"v_head_size", &A::v_head_size},
                      Field{"scale", &A::scale},
                      Field{"window", &A::window},
                      Field{"sink_tokens", &A::sink_tokens},
                      Field{"softcap", &A::softcap},
                      Field{"alibi_max_bias", &A::alibi_max_bias},
                      Field{"alibi_bf16", &A::alibi_bf16},
                      Field{"sink_logits", &A::sink_logits},
                      Field{"relative_buckets", &A::relative_buckets},
                      Field{"relative_max_distance", &A::relative_max_distance}};
  }
};

}  // namespace millrace::ops
