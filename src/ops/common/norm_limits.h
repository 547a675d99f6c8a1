// What the CUDA kernels of the norm ops can take. Host code.
#pragma once

#include <string>

#include "base/str.h"
#include "ops/op.h"

namespace millrace::ops {

/// A block holds a row in registers: 16 elements in each of 1024 threads.
inline constexpr int64_t kWidestNormRow = 16384;

inline std::string norm_cuda_why_not(const Launch& launch, const device::Properties&) {
  const int64_t width = launch.in[0].dim(1);
  if (width <= kWidestNormRow) return {};
  return str("rows of ", width, " elements, more than ", kWidestNormRow);
}

}  // namespace millrace::ops
