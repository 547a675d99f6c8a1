// One matrix product as plain pointers and sizes: what the kernels get. Kernel files are compiled
// for one instruction set each, so that they include this and no header with code in it.
#pragma once

#include <cstdint>

#include "ir/dtype.h"
#include "ops/common/activation_kind.h"

namespace millrace::ops {

struct MatmulJob {
  const void* x = nullptr;         // [T, K]
  const void* weight = nullptr;    // [N, K], gated [2N, K]
  const void* bias = nullptr;      // [N], gated [2N], or null
  const void* residual = nullptr;  // [T, N] or null
  void* out = nullptr;             // [T, N]
  int64_t rows = 0;                // T
  int64_t cols = 0;                // N
  int64_t depth = 0;               // K
  ir::DType x_type = ir::DType::kF32;
  ir::DType weight_type = ir::DType::kF32;
  ir::DType bias_type = ir::DType::kF32;
  ir::DType out_type = ir::DType::kF32;
  ActivationKind activation = ActivationKind::kNone;
  bool gated = false;  // weight rows [0, N) make the gate, [N, 2N) what it is multiplied with

  int64_t weight_rows() const { return gated ? 2 * cols : cols; }
};

/// Outputs [row_begin, row_end) x [col_begin, col_end).
struct MatmulPart {
  int64_t row_begin, row_end;
  int64_t col_begin, col_end;
};

}  // namespace millrace::ops
