// rms_norm: out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset), over the last dimension, in
// float arithmetic.
//   x: float [T, E], weight: float [E] -> x's type [T, E]
#pragma once

#include "ops/attributes.h"
#include "ops/common/norm_options.h"

namespace millrace::ops {

struct RmsNorm {
  static constexpr std::string_view kName = "rms_norm";
  double eps = 1e-5;
  double weight_offset = 0;
  bool operator==(const RmsNorm&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"eps", &RmsNorm::eps}, Field{"weight_offset", &RmsNorm::weight_offset}};
  }
  NormOptions options() const { return {.eps = eps, .weight_offset = weight_offset}; }
};

}  // namespace millrace::ops
