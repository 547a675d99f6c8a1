#include "nn/mlp.h"

#include "nn/layers.h"

namespace millrace::nn {

Value gated_mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation, bool bias,
                const GatedMlpNames& names) {
  const Value gate = linear(scope[names.gate], x, ffn, bias);
  const Value up = linear(scope[names.up], x, ffn, bias);
  return linear(scope[names.down], nn::activation(gate, activation) * up, x.dim(-1), bias);
}

Value fused_gated_mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation,
                      const FusedMlpNames& names, bool bias) {
  const Value both = linear(scope[names.gate_up], x, 2 * ffn, bias);
  const Value gate = slice_cols(both, 0, ffn), up = slice_cols(both, ffn, 2 * ffn);
  return linear(scope[names.down], nn::activation(gate, activation) * up, x.dim(-1), bias);
}

Value mlp(const Scope& scope, Value x, int64_t ffn, const std::string& activation,
          std::string_view up, std::string_view down, bool bias) {
  const Value inner = nn::activation(linear(scope[up], x, ffn, bias), activation);
  return linear(scope[down], inner, x.dim(-1), bias);
}

}  // namespace millrace::nn
