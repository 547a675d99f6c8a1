// layer_norm: out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, over the last dimension;
// var divides by E.
//   x: float [T, E], weight: float [E], bias: float [E] (may be left out) -> x's type [T, E]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct LayerNorm {
  static constexpr std::string_view kName = "layer_norm";
  double eps = 1e-5;
  bool operator==(const LayerNorm&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"eps", &LayerNorm::eps}}; }
};

}  // namespace millrace::ops
