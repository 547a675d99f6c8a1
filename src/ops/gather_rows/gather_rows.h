// gather_rows: out[l, ...] = x[rows[l], ...]. Before the head: only the last token of each sequence
// needs logits.
//   x: float or i32 [T, ...], rows: i32 [L] -> x's type [L, ...]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct GatherRows {
  static constexpr std::string_view kName = "gather_rows";
  bool operator==(const GatherRows&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
