// moe_combine: what a token's experts answered, weighted and added.
//   y: float [T, k, N], or [T, N] where k = 1; weights: f32 [T, k] -> y's type [T, N]
//   out[t] = sum over j of weights[t, j] * y[t, j], in float, in the order of j
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct MoeCombine {
  static constexpr std::string_view kName = "moe_combine";
  bool operator==(const MoeCombine&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
