// Attention as model files say it: the op's attributes plus where its inputs come from.
#pragma once

#include "nn/step_inputs.h"
#include "ops/attention/attention.h"

namespace millrace::nn {

/// What one call brings besides Q, K and V.
struct AttentionInputs {
  const StepInputs& step;
  int layer = 0;             // which KV cache
  Value angles{};            // f32 [T, R] of rope_angles, when attributes.rotary_dim > 0
  Value q_norm{}, k_norm{};  // float [D], when attributes.qk_norm
};

/// q [T, H*D], k [T, G*D], v [T, G*Dv] -> [T, H*Dv].
Value attention(const ops::Attention& attributes, Value q, Value k, Value v,
                const AttentionInputs& inputs);

}  // namespace millrace::nn
