// add: element by element, out = a + b.
//   a, b: the same float type and shape -> that type
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Add {
  static constexpr std::string_view kName = "add";
  bool operator==(const Add&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
