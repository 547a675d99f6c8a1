// Blocks of a cluster that write into each other's shared memory. For .cu files; addresses in
// shared memory are 32-bit.
#pragma once

#include <cstdint>

namespace millrace::ops::cluster {

/// Of this block in its cluster.
__device__ inline unsigned block_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// All threads of a cluster arrive, then wait: what was written before the arrivals is seen behind
/// the wait, and every block has begun.
__device__ inline void arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Where an address of this block's shared memory is in the block `rank`.
__device__ inline uint32_t address_in(unsigned rank, uint32_t address) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

/// Stores that run by themselves, to addresses of address_in(); `barrier` is one of the block that
/// `to` is in, and counts their bytes.
__device__ inline void store_async(uint32_t to, float4 x, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, "
      "[%5];" ::"r"(to),
      "r"(__float_as_uint(x.x)), "r"(__float_as_uint(x.y)), "r"(__float_as_uint(x.z)),
      "r"(__float_as_uint(x.w)), "r"(barrier)
      : "memory");
}
__device__ inline void store_async(uint32_t to, float2 x, uint32_t barrier) {
  asm volatile(
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1, %2}, "
      "[%3];" ::"r"(to),
      "r"(__float_as_uint(x.x)), "r"(__float_as_uint(x.y)), "r"(barrier)
      : "memory");
}

}  // namespace millrace::ops::cluster
