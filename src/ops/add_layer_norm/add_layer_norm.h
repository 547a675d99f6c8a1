// add_layer_norm: the residual sum and its norm in one pass over memory.
//   sum = x + residual;  normed = layer_norm(sum, weight, bias) {weight_offset}
//   x, residual: the same float type [T, E], weight: float [E], bias: like weight (bias, or weight
//   and bias, may be left out) -> sum, normed: x's type [T, E]
#pragma once

#include "ops/attributes.h"
#include "ops/common/norm_options.h"

namespace millrace::ops {

struct AddLayerNorm {
  static constexpr std::string_view kName = "add_layer_norm";
  double eps = 1e-5;
  double weight_offset = 0;
  bool operator==(const AddLayerNorm&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"eps", &AddLayerNorm::eps},
                      Field{"weight_offset", &AddLayerNorm::weight_offset}};
  }
  NormOptions options() const { return {.eps = eps, .weight_offset = weight_offset}; }
};

}  // namespace millrace::ops
