// gated_activation: SwiGLU and its relatives on the merged product, out = f(gate) * up.
//   gate_up: float [..., 2F], gate in columns [0, F), up in [F, 2F) -> [..., F]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct GatedActivation {
  static constexpr std::string_view kName = "gated_activation";
  std::string kind = "silu";  // ops/common/activation_kind.h
  bool operator==(const GatedActivation&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"kind", &GatedActivation::kind}}; }
};

}  // namespace millrace::ops
