// rescale: a number times a factor, bent by a soft cap, cut by bounds; each step may be left out.
//   y = factor * x;  y = softcap * tanh(y / softcap) if softcap > 0;  out = min(max(y, low), high)
//   x: any float type and shape -> the same
// In float, rounded once. NaN stays NaN.
#pragma once

#include <limits>

#include "ops/attributes.h"

namespace millrace::ops {

struct Rescale {
  static constexpr std::string_view kName = "rescale";
  double factor = 1;
  double softcap = 0;  // 0: none
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool operator==(const Rescale&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"factor", &Rescale::factor}, Field{"softcap", &Rescale::softcap},
                      Field{"low", &Rescale::low}, Field{"high", &Rescale::high}};
  }
};

}  // namespace millrace::ops
