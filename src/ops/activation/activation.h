// activation: element by element, out = f(x).
//   x: any float type and shape -> the same
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Activation {
  static constexpr std::string_view kName = "activation";
  std::string kind = "silu";  // ops/common/activation_kind.h
  bool operator==(const Activation&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"kind", &Activation::kind}}; }
};

}  // namespace millrace::ops
