// Attention as model files say it: the op's attributes plus where its inputs come from.
#pragma once

#include "nn/step_inputs.h"
#include "ops/attention/attention.h"
#include "ops/rope_angles/rope_angles.h"

namespace millrace::nn {

/// What one call brings besides Q, K and V.
struct AttentionInputs {
  const StepInputs& step;
  int layer = 0;             // which KV cache
  Value angles{};            // f32 [T, R] of rope_angles, when attributes.rotary_dim > 0
  Value q_norm{}, k_norm{};  // float [D], when attributes.qk_norm
  Value sink_logits{};       // float [H], when attributes.sink_logits
  Value relative_bias{};     // float [relative_buckets, H], when attributes.relative_buckets > 0
};

/// q [T, H*D], k [T, G*D], v [T, G*Dv] -> [T, H*Dv].
Value attention(const ops::Attention& attributes, Value q, Value k, Value v,
                const AttentionInputs& inputs);

/// Angles of this step's positions: f32 [T, R], shared by all layers with these options.
Value rope_angles(Trace& trace, const StepInputs& step, const ops::RopeAngles& options);

/// Queries [T, K] times log(n) / log(length) at the n-th token of a sequence, beyond `length` of
/// them.
Value scale_by_logn(Value queries, const StepInputs& step, int64_t length);

/// Token ids i32 [T] of a step: those in `ids` that are negative are looked up in the token
/// history.
Value merge_ids(Value ids, Value history);

}  // namespace millrace::nn
