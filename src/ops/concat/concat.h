// concat: stacks along dimension 0. Exists for weights: pass fold_constants turns a concat of
// weights into one weight.
//   inputs: one or more of one type, [N_i, K] or [N_i] -> [sum N_i, K] or [sum N_i]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Concat {
  static constexpr std::string_view kName = "concat";
  bool operator==(const Concat&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
