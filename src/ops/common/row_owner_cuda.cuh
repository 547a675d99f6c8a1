// Which sequence owns a row of the step, found on the device. For .cu files.
#pragma once

#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {

/// The sequence that owns row `row`, or -1, in every thread of the block. `scratch` is in shared
/// memory; a barrier lies behind the last use of it.
__device__ inline int find_owner(const int32_t* query_start, const int32_t* query_length,
                                 int sequences, int64_t row, int* scratch) {
  if (threadIdx.x == 0) *scratch = -1;
  __syncthreads();
  for (int s = static_cast<int>(threadIdx.x); s < sequences; s += static_cast<int>(blockDim.x)) {
    const int64_t i = row - query_start[s];
    if (i >= 0 && i < query_length[s]) *scratch = s;  // one thread at most: rows have one owner
  }
  __syncthreads();
  return *scratch;
}

}  // namespace millrace::ops
