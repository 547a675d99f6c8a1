// attention_generation: attention of the sequences in the generation phase (host_request_types 1,
// they come last), with one query token each, or a few. The work over one sequence is split by its
// length (flash-decoding) and combined; the split follows the shape, never the number of threads.
//
//   q: [T, H*D] rotated; the sequence inputs; the layer's KV cache (state), this step's K and V in
//   it; out: [T, H*Dv], where the context sequences' rows are already; then, if asked
//   for, plan: i32 [W, 24] (ops/attention_plan); sink_logits: float [H]; relative_bias: float
//   [relative_buckets, H]
//   with beams also cache_indirection i32 [R, N] and sequence_slots i32 [S] (sequence_inputs.h)
//   -> out: the same memory, the rows of generation sequences added
//
// With `append` it does first, for the rows of generation sequences, what rope_append does without
// qk_norm (pass fuse_rope). Then the first input is qkv: [T, (H + G)*D + G*Dv] if `packed`, else q
// as projected, and behind `out` stand k: [T, G*D] and v: [T, G*Dv] unless `packed`, and angles:
// f32 [T, R] if rotary_dim > 0.
//   -> also the cache after the step (state)
//
// The formula is attention's (ops/attention/attention.h): softmax and sums in float over K and V as
// stored. What is appended is attended to as stored, too, and q is rounded to its type when it is
// rotated: one op gives what two would.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

inline constexpr int kMaxSplits = 32;

struct AttentionGeneration {
  static constexpr std::string_view kName = "attention_generation";
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
  int beams = 0;   // above 0: of beams that share their past, so many of a request at most
  int splits = 0;  // into how many pieces a sequence is split, up to kMaxSplits; 0: by its length
  bool planned = false;  // who does what is an input
  bool append = false;   // rotates q and k, and writes k and v to the cache
  int rotary_dim = 0;    // these three as in rope_append
  bool interleaved = false;
  bool packed = false;
  bool operator==(const AttentionGeneration&) const = default;
  static constexpr auto fields() {
    using A = AttentionGeneration;
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
                      Field{"relative_max_distance", &A::relative_max_distance},
                      Field{"beams", &A::beams},
                      Field{"splits", &A::splits},
                      Field{"planned", &A::planned},
                      Field{"append", &A::append},
                      Field{"rotary_dim", &A::rotary_dim},
                      Field{"interleaved", &A::interleaved},
                      Field{"packed", &A::packed}};
  }
};

}  // namespace millrace::ops
