// Grouped-query attention as Llama and those after it spell it.
#pragma once

#include "models/decoder_model_common.h"

namespace millrace::models {

/// `q_proj`, `k_proj`, `v_proj` and `o_proj` below the scope, `q_norm` and `k_norm` where the
/// attributes have qk_norm, `sinks` where they have sink_logits; x [T, dim] -> [T, dim]. `in`
/// brings the angles.
nn::Value gqa_attention(const nn::Scope& scope, nn::Value x, const ops::Attention& attrs,
                        const Biases& biases, nn::AttentionInputs in);

}  // namespace millrace::models
