// log_softmax: the logarithms of probabilities, of which beams are made.
//   out[l, t] = x[l, t] - log(sum over u of exp(x[l, u]))
//   x: f32 [L, V] -> f32 [L, V]
// A row with a NaN or +infinity, or of nothing but -infinity, has no probabilities: it becomes NaN
// throughout.
#pragma once

#include "ops/attributes.h"

namespace millrace::ops {

struct LogSoftmax {
  static constexpr std::string_view kName = "log_softmax";
  bool operator==(const LogSoftmax&) const = default;
  static constexpr auto fields() { return std::tuple{}; }
};

}  // namespace millrace::ops
