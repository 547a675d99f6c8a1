// One element of a floating-point tensor as float: for scalar code that takes every type.
#pragma once

#include <cstdint>

#include "ir/dtype.h"

namespace millrace::ops {

/// REQUIRES: `type` is F32, BF16 or F16.
inline float load_float(const void* data, ir::DType type, int64_t i) {
  switch (type) {
    case ir::DType::kBF16:
      return ir::bf16_to_float(static_cast<const uint16_t*>(data)[i]);
    case ir::DType::kF16:
      return ir::f16_to_float(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

/// Rounds to nearest, ties to even. REQUIRES: `type` is F32, BF16 or F16.
inline void store_float(void* data, ir::DType type, int64_t i, float value) {
  switch (type) {
    case ir::DType::kBF16:
      static_cast<uint16_t*>(data)[i] = ir::float_to_bf16(value);
      break;
    case ir::DType::kF16:
      static_cast<uint16_t*>(data)[i] = ir::float_to_f16(value);
      break;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

}  // namespace millrace::ops
