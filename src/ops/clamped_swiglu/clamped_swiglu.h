// clamped_swiglu: the gated activation of gpt-oss, on columns that alternate between gate and up.
//   gate_up: float [..., 2F], gate in the even columns, up in the odd ones -> [..., F]
//   g = min(gate, limit), u = min(max(up, -limit), limit), out = (u + 1) * g / (1 + exp(-alpha g))
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct ClampedSwiglu {
  static constexpr std::string_view kName = "clamped_swiglu";
  double alpha = 1.702;
  double limit = 7;
  bool operator==(const ClampedSwiglu&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"alpha", &ClampedSwiglu::alpha}, Field{"limit", &ClampedSwiglu::limit}};
  }
};

}  // namespace millrace::ops
