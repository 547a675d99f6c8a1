// logn_factors: by what queries are multiplied beyond the length of the training, so that attention
// over more keys stays as sharp (LogN scaling; Bai et al.: "Qwen technical report", 2023, section
// 2.3).
//   out[t] = log(n) / log(length) where n = position_ids[t] + 1 is above length, else 1
//   position_ids: i32 [T] -> f32 [T, 1]
// Logarithms in double, rounded once.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct LognFactors {
  static constexpr std::string_view kName = "logn_factors";
  int length = 0;
  bool operator==(const LognFactors&) const = default;
  static constexpr auto fields() { return std::tuple{Field{"length", &LognFactors::length}}; }
};

}  // namespace millrace::ops
