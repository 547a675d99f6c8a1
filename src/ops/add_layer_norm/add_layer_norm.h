// add_layer_norm: the residual sum and its norm in one pass over memory.
//   sum = x + residual;  normed = layer_norm(sum, weight, bias)
//   x, residual: the same float type [T, E], weight: float [E], bias: float [E] (may be left out)
//   -> sum, normed: x's type [T, E]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AddLayerNorm {
  static constexpr std::string_view kName = "add_layer_norm";
  double eps = 1e-5;
  bool operator==(const AddLayerNorm&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"eps", &AddLayerNorm::eps}}; }
};

}  // namespace millrace::ops
