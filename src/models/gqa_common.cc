#include "models/gqa_common.h"

#include "nn/layers.h"

namespace millrace::models {

nn::Value gqa_attention(const nn::Scope& scope, nn::Value x, const GqaLayer& layer,
                        nn::AttentionInputs in) {
  const auto [q, k, v] = nn::separate_qkv(scope, x, layer.sizes, layer.qkv_bias);
  if (layer.head_norm) {
    in.q_norm = scope["q_norm"].weight("weight", {layer.sizes.head_size});
    in.k_norm = scope["k_norm"].weight("weight", {layer.sizes.head_size});
  }
  ops::Attention attrs = attention_of(layer.sizes, layer.window, layer.sink_tokens);
  attrs.rotary_dim = layer.rotary_dim;
  attrs.qk_norm = layer.head_norm;
  if (layer.head_norm) attrs.qk_norm_eps = layer.norm_eps;
  attrs.sink_logits = layer.sink_logits;
  if (layer.sink_logits) in.sink_logits = scope.weight("sinks", {layer.sizes.heads});
  scope.enter();
  const nn::Value out = nn::attention(attrs, q, k, v, in);
  return nn::linear(scope["o_proj"], out, x.dim(-1), layer.out_bias);
}

}  // namespace millrace::models
