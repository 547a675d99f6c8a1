// What the files for one instruction set offer to the tactics: plain functions on plain data.
// x, residual and out are f32.
#pragma once

#include "ops/common/matmul_job.h"

namespace millrace::ops {

/// A product with few rows, on weights as they lie. A part has all rows.
using RowsKernel = void (*)(const MatmulJob& job, const MatmulPart& part);

void matmul_rows_avx2(const MatmulJob& job, const MatmulPart& part);
void matmul_rows_avx512(const MatmulJob& job, const MatmulPart& part);

/// A product with many rows, in two phases: x is copied (and rounded, where products are of bf16)
/// into blocks of K, [K / depth_block, T, kRowBytes], so that a tile reads one stretch of memory.
struct PanelsKernel {
  static constexpr int64_t kRowBytes = 1536;
  static constexpr int64_t kMaxRows = 512;  // T at most: x's copy stays in the shared cache
  int64_t depth_block;                      // elements of K in a block
  int64_t col_block;                        // columns that are packed together
  /// Copies rows [begin, end) of all blocks.
  void (*pack_x)(const MatmulJob& job, int64_t begin, int64_t end, void* packed);
  void (*multiply)(const MatmulJob& job, const MatmulPart& part, const void* packed);
};

extern const PanelsKernel kPanelsAvx2;
extern const PanelsKernel kPanelsAvx512;
extern const PanelsKernel kPanelsAvx512Bf16;

}  // namespace millrace::ops
