#include "models/gqa_common.h"

#include "nn/layers.h"

namespace millrace::models {

nn::Value gqa_attention(const nn::Scope& scope, nn::Value x, const ops::Attention& attrs,
                        const Biases& biases, nn::AttentionInputs in) {
  const auto [q, k, v] =
      nn::separate_qkv(scope, x, {attrs.heads, attrs.kv_heads, attrs.head_size}, biases.qkv);
  if (attrs.qk_norm) {
    in.q_norm = scope["q_norm"].weight("weight", {attrs.head_size});
    in.k_norm = scope["k_norm"].weight("weight", {attrs.head_size});
  }
  if (attrs.sink_logits) in.sink_logits = scope.weight("sinks", {attrs.heads});
  scope.enter();
  const nn::Value out = nn::attention(attrs, q, k, v, in);
  return nn::linear(scope["o_proj"], out, x.dim(-1), biases.out);
}

}  // namespace millrace::models
