// Tensor elements in float64, for Op::exact.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

/// Element `index` of a tensor of f32, bf16, f16 or i32.
double exact_element(const Tensor& tensor, int64_t index);

}  // namespace millrace::ops
