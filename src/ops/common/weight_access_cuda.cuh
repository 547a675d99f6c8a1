// Weights of a type known when the kernel runs only, several at a time. For .cu files.
#pragma once

#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {

/// Weights are constant: they can come while the kernel before still runs.
__device__ inline void prefetch_to_l2(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
}
__device__ inline void prefetch_to_l1(const void* at) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(at));
}

/// kPack neighbours from `column` on; aligned as for load_floats().
template <int kPack>
__device__ inline void load_weights(const void* weights, ir::DType type, int column, float* to) {
  if (type == ir::DType::kBF16) {
    load_floats<kPack>(static_cast<const __nv_bfloat16*>(weights) + column, to);
  } else if (type == ir::DType::kF16) {
    load_floats<kPack>(static_cast<const __half*>(weights) + column, to);
  } else {
    load_floats<kPack>(static_cast<const float*>(weights) + column, to);
  }
}

}  // namespace millrace::ops
