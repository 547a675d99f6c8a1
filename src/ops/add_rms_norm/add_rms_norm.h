// add_rms_norm: the residual sum and its norm in one pass over memory.
//   sum = x + residual;  normed = rms_norm(sum, weight)
//   x, residual: the same float type [T, E], weight: float [E] -> sum, normed: that type [T, E]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AddRmsNorm {
  static constexpr std::string_view kName = "add_rms_norm";
  double eps = 1e-5;
  bool operator==(const AddRmsNorm&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"eps", &AddRmsNorm::eps}}; }
};

}  // namespace millrace::ops
