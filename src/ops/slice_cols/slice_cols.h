// slice_cols: out = x[:, begin:end].
//   x: float [T, N] -> x's type [T, end - begin]
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct SliceCols {
  static constexpr std::string_view kName = "slice_cols";
  int begin = 0;
  int end = 0;
  bool operator==(const SliceCols&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"begin", &SliceCols::begin}, Field{"end", &SliceCols::end}};
  }
};

}  // namespace millrace::ops
