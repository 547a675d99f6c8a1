// Copies of what is read once, which leaves the second-level cache before what is read again:
// activations, tables, and the instructions of kernels. For .cu files.
#pragma once

#include <cstdint>

namespace millrace::ops {

/// For an instruction with a cache hint.
__device__ inline uint64_t streamed_policy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// copy_async (tensor_core_cuda.cuh) of what is read once.
__device__ inline void copy_streamed(uint32_t shared_address, const void* from, bool inside) {
  asm volatile(
      "cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(shared_address),
      "l"(from), "r"(inside ? 16 : 0), "l"(streamed_policy())
      : "memory");
}
__device__ inline void copy_streamed(uint32_t shared_address, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(shared_address),
               "l"(from), "l"(streamed_policy())
               : "memory");
}

}  // namespace millrace::ops
