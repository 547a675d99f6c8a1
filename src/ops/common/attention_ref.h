// The reference of attention: one query row after the other, keys in order of position. Both phases
// use it, so a token's result does not depend on the phase, the chunk or the batch it came in, nor
// on the blocks its keys lie in.
#pragma once

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
  int beams = 0;  // above 0: the last inputs are the beam inputs

  template <typename A>
  static AttentionShape of(const A& a) {
    AttentionShape shape{
        a.heads,  a.kv_heads,   a.head_size, a.v_head_size, static_cast<float>(a.scale),
        a.window, a.sink_tokens};
    if constexpr (requires { a.beams; }) shape.beams = a.beams;
    return shape;
  }
  int group() const { return heads / kv_heads; }
  /// First visible position of the window that ends at `position`.
  int64_t window_begin(int64_t position) const {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
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

/// The shape rule of both: `in` is q, the sequence inputs, the cache.
void check_attention(std::span<const ir::TensorType> in, const AttentionShape& shape);

/// The cost of both: K and V of a sequence read once, q and out once; two products per key.
Cost attention_cost(const Launch& launch, const AttentionShape& shape, RequestType type);

}  // namespace millrace::ops
