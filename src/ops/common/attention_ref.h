// The reference of attention: one query row after the other, keys in order of position. Both phases
// use it, so a token's result does not depend on the phase, the chunk or the batch it came in, nor
// on the blocks its keys lie in.
#pragma once

#include "ops/common/attention_logits.h"
#include "ops/common/relative_position.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {

/// What the attributes of both attention ops say.
struct AttentionShape {
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int v_head_size = 0;
  float scale = 0;
  int window = 0;
  int sink_tokens = 0;
  float softcap = 0;
  float alibi_max_bias = 0;
  bool alibi_bf16 = false;
  bool sink_logits = false;
  int relative_buckets = 0;
  int relative_max_distance = 0;
  int beams = 0;  // above 0: the beam inputs are the last of all

  template <typename A>
  static AttentionShape of(const A& a) {
    AttentionShape shape{a.heads,
                         a.kv_heads,
                         a.head_size,
                         a.v_head_size,
                         static_cast<float>(a.scale),
                         a.window,
                         a.sink_tokens,
                         static_cast<float>(a.softcap),
                         static_cast<float>(a.alibi_max_bias),
                         a.alibi_bf16,
                         a.sink_logits,
                         a.relative_buckets,
                         a.relative_max_distance};
    if constexpr (requires { a.beams; }) shape.beams = a.beams;
    return shape;
  }
  int group() const { return heads / kv_heads; }
  /// First visible position of the window that ends at `position`.
  int64_t window_begin(int64_t position) const {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
  }

  /// Whether a logit is scale times a product, and nothing else.
  bool has_plain_logits() const {
    return softcap == 0 && alibi_max_bias == 0 && relative_buckets == 0;
  }
  HeadLogits head_logits(int head) const {
    const float slope = alibi_max_bias > 0 ? alibi_slope(head, heads, alibi_max_bias) : 0;
    return {scale, softcap, slope, alibi_bf16};
  }
  RelativeBuckets buckets() const { return {relative_buckets, relative_max_distance, false}; }

  // The inputs that only some attributes ask for come last.
  size_t extra_inputs() const {
    return (sink_logits ? 1U : 0U) + (relative_buckets > 0 ? 1U : 0U) + beam_inputs();
  }
  size_t beam_inputs() const { return beams > 0 ? size_t{kNumBeamInputs} : 0; }
  /// [H]. REQUIRES: sink_logits.
  const Tensor& sinks_of(std::span<const Tensor> in) const {
    return in[in.size() - extra_inputs()];
  }
  /// [relative_buckets, H]. REQUIRES: relative_buckets > 0.
  const Tensor& relative_bias_of(std::span<const Tensor> in) const {
    return in[in.size() - 1 - beam_inputs()];
  }
};

/// The sequences of a launch of either op, with beams where the shape says so.
SequenceRows attention_rows(const Launch& launch, const AttentionShape& shape);

/// Computes the rows of all sequences of this type: in[0] q, then the sequence inputs and the
/// cache; out[0]. Sums in double, rounded once.
void attend_ref(const Launch& launch, const AttentionShape& shape, RequestType type);

/// Element `index` of the output before it is rounded; NaN in rows of other sequences.
double attention_exact(const Launch& launch, const AttentionShape& shape, RequestType type,
                       int64_t index);

/// The shape rule of both: `in` is q, the sequence inputs, the cache, what else the op has (up to
/// `fixed_inputs` in all), and the extra inputs.
void check_attention(std::span<const ir::TensorType> in, const AttentionShape& shape,
                     size_t fixed_inputs);

/// Throws Error unless the attributes make sense and the last inputs are those they ask for.
void check_logits(std::span<const ir::TensorType> in, const AttentionShape& shape);

/// The cost of both: K and V of a sequence read once, q and out once; two products per key.
Cost attention_cost(const Launch& launch, const AttentionShape& shape, RequestType type);

}  // namespace millrace::ops
