// add_row: adds one row to every row, out[t, :] = x[t, :] + row.
//   x: float [T, E], row: float [1, E] -> x's type [T, E]
// In float, rounded once.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct AddRow {
  static constexpr std::string_view kName = "add_row";
  bool operator==(const AddRow&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
