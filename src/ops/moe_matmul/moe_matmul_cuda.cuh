// What both kernels of moe_matmul do with an output.
#pragma once

#include "ops/common/cuda_kernel.cuh"
#include "ops/moe_matmul/moe_matmul_job.h"

namespace millrace::ops {

/// out[slot, col] = sum + bias of the expert.
__device__ inline void write_expert_out(const MoeMatmulJob& job, int64_t slot, int64_t expert,
                                        int64_t col, float sum) {
  if (job.bias != nullptr) {
    const int64_t at = expert * job.cols + col;
    if (job.bias_type == ir::DType::kF32) {
      sum += static_cast<const float*>(job.bias)[at];
    } else if (job.bias_type == ir::DType::kBF16) {
      sum += to_float(static_cast<const __nv_bfloat16*>(job.bias)[at]);
    } else {
      sum += to_float(static_cast<const __half*>(job.bias)[at]);
    }
  }
  const int64_t at = slot * job.cols + col;
  if (job.out_type == ir::DType::kF32) {
    static_cast<float*>(job.out)[at] = sum;
  } else if (job.out_type == ir::DType::kBF16) {
    static_cast<__nv_bfloat16*>(job.out)[at] = from_float<__nv_bfloat16>(sum);
  } else {
    static_cast<__half*>(job.out)[at] = from_float<__half>(sum);
  }
}

}  // namespace millrace::ops
