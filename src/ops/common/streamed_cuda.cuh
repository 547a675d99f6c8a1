// Copies of what is read once, which leaves the second-level cache before what is read again:
// activations, tables, and the instructions of kernels. For .cu files.
#pragma once

#include <cstdint>

#include <cuda.h>

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

/// hopper::copy_box of what is read once.
__device__ inline void copy_streamed_box(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                         int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "l"(streamed_policy())
      : "memory");
}

__device__ inline void copy_streamed_box(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                         int x, int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "l"(streamed_policy())
      : "memory");
}

__device__ inline void copy_streamed_box(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                         int x, int y, int z, int w, int v) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "l"(streamed_policy())
      : "memory");
}

}  // namespace millrace::ops
