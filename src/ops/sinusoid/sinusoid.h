// sinusoid: positions as sines and cosines (Vaswani et al., "Attention is all you need", 2017,
// section 3.5), all sines first.
//   out[t, i] = sin(a), out[t, ceil(dim/2) + i] = cos(a), a = position_ids[t] / 10000^(2i / dim)
//   position_ids: i32 [T] -> `dtype` [T, dim]
// Angles and functions in double, rounded once.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct Sinusoid {
  static constexpr std::string_view kName = "sinusoid";
  int dim = 0;
  std::string dtype = "f32";  // of the output: the graph's activation type
  bool operator==(const Sinusoid&) const = default;
  static constexpr auto fields() {
    return std::tuple{Field{"dim", &Sinusoid::dim}, Field{"dtype", &Sinusoid::dtype}};
  }
};

}  // namespace millrace::ops
