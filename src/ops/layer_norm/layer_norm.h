// layer_norm: out = (x - mean(x)) / sqrt(var(x) + eps) * (weight + weight_offset) + bias, over the
// last dimension, or over each of the G groups of E/G elements that it is made of; var divides by
// their number.
//   x: float [T, E], weight: float [E], bias: like weight -> x's type [T, E]
// Bias, or weight and bias, may be left out: then nothing is added, or multiplied. With groups,
// weights may also be [G, E/G], or [E/G] for all of them.
#pragma once

#include "ops/attributes.h"
#include "ops/common/norm_options.h"

namespace millrace::ops {

struct LayerNorm {
  static constexpr std::string_view kName = "layer_norm";
  double eps = 1e-5;
  double weight_offset = 0;
  int groups = 1;  // G
  bool operator==(const LayerNorm&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"eps", &LayerNorm::eps},
                      Field{"weight_offset", &LayerNorm::weight_offset},
                      Field{"groups", &LayerNorm::groups}};
  }
  NormOptions options() const {
    return {.eps = eps, .weight_offset = weight_offset, .groups = groups};
  }
};

}  // namespace millrace::ops
