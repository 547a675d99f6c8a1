// mul: element by element, out = a * b.
//   a, b: the same float type and shape -> that type
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Mul {
  static constexpr std::string_view kName = "mul";
  bool operator==(const Mul&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
