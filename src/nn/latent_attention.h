// Latent attention (DeepSeek's MLA) as model files say it.
#pragma once

#include "nn/attention_layer.h"
#include "ops/mla_attention/mla_attention.h"

namespace millrace::nn {

/// q [T, H*(Dn+R)] and kv [T, C+R] (latent and key, as kv_a_proj_with_mqa gives them) -> [T, H*Dv].
/// Reads `kv_a_layernorm.weight` [C] and `kv_b_proj.weight` [H*(Dn+Dv), C] below the scope; `in`
/// brings the angles. The layer's KV cache has one head of C+R elements and no V.
Value latent_attention(const Scope& scope, const ops::MlaAttention& attributes, Value q, Value kv,
                       const AttentionInputs& in, bool interleaved, double norm_eps);

}  // namespace millrace::nn
