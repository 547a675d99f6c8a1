// add_rms_norm: the residual sum and its norm in one pass over memory.
//   sum = x + residual;  normed = rms_norm(sum, weight) {weight_offset}
//   x, residual: the same float type [T, E], weight: float [E] -> sum, normed: that type [T, E]
#pragma once

#include "ops/attributes.h"
#include "ops/common/norm_options.h"

namespace millrace::ops {

struct AddRmsNorm {
  static constexpr std::string_view kName = "add_rms_norm";
  double eps = 1e-5;
  double weight_offset = 0;
  bool operator==(const AddRmsNorm&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"eps", &AddRmsNorm::eps},
                      Field{"weight_offset", &AddRmsNorm::weight_offset}};
  }
  NormOptions options() const { return {.eps = eps, .weight_offset = weight_offset}; }
};

}  // namespace millrace::ops
