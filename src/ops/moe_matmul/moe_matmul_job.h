// One launch of moe_matmul as plain pointers and sizes. Host code and kernels take it alike.
#pragma once

#include <cstdint>

#include "ir/dtype.h"

namespace millrace::ops {

struct MoeMatmulJob {
  const void* x = nullptr;       // [T, K] or [T, k, K]
  const int32_t* ids = nullptr;  // [T * k]
  const void* weight = nullptr;  // [E, N, K]
  const void* bias = nullptr;    // [E, N] or null
  void* out = nullptr;           // [T * k, N]
  int64_t slots = 0;             // T * k: a slot is a row with one of its experts
  int64_t slots_per_x = 1;       // slots that share a row of x: k, or 1
  int64_t experts = 0;           // E
  int64_t cols = 0;              // N
  int64_t depth = 0;             // K
  ir::DType x_type = ir::DType::kF32;
  ir::DType weight_type = ir::DType::kF32;
  ir::DType bias_type = ir::DType::kF32;
  ir::DType out_type = ir::DType::kF32;
};

}  // namespace millrace::ops
