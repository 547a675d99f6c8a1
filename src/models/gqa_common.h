// Grouped-query attention with rotary positions, as Llama and those after it spell it.
#pragma once

#include "models/decoder_common.h"

namespace millrace::models {

/// What is true of one layer.
struct GqaLayer {
  nn::QkvSizes sizes;
  int rotary_dim = 0;
  int window = 0;       // 0: none
  int sink_tokens = 0;  // in front of a window
  bool qkv_bias = false, out_bias = false;
  bool head_norm = false;  // `q_norm` and `k_norm`, with norm_eps
  double norm_eps = 0;
  bool sink_logits = false;  // `sinks` [H]
};

/// `q_proj`, `k_proj`, `v_proj` and `o_proj` below the scope; x [T, dim] -> [T, dim]. `in` brings
/// the angles.
nn::Value gqa_attention(const nn::Scope& scope, nn::Value x, const GqaLayer& layer,
                        nn::AttentionInputs in);

}  // namespace millrace::models
