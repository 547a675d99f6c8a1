// The norms in float64, for Op::exact.
#pragma once

#include <cstdint>

#include "base/function_ref.h"

namespace millrace::ops {

/// A row of `width` elements, by index.
using ExactRow = FunctionRef<double(int64_t)>;

/// x[i] / sqrt(mean(x^2) + eps), without the weight.
double exact_rms_norm(ExactRow x, int64_t width, double eps, int64_t i);
/// (x[i] - mean(x)) / sqrt(var(x) + eps), without weight and bias.
double exact_layer_norm(ExactRow x, int64_t width, double eps, int64_t i);

}  // namespace millrace::ops
