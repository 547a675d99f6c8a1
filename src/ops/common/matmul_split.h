// How a product on the CPU is split over threads. Splits never change a result: an output's sum is
// made by one thread, in an order that follows K only.
#pragma once

#include "base/thread_pool.h"
#include "ops/common/matmul_kernels.h"

namespace millrace::ops {

/// All outputs by a kernel for few rows.
void multiply_by_rows(RowsKernel kernel, const MatmulJob& job, ThreadPool& pool);

/// All outputs by a kernel for many rows. `workspace`: panels_workspace_bytes, 64-byte aligned.
/// REQUIRES: at most PanelsKernel::kMaxRows rows.
void multiply_by_panels(const PanelsKernel& kernel, const MatmulJob& job, void* workspace,
                        ThreadPool& pool);

int64_t panels_workspace_bytes(const PanelsKernel& kernel, int64_t rows, int64_t depth);

}  // namespace millrace::ops
