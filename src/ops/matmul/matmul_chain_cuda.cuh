// What matmul_chain_cuda.cu needs beside ops/common/hopper.cuh: copies of parts of rows, and
// counters that blocks of a grid tell each other by.
#pragma once

#include <cstdint>

#include <cuda.h>

#include "ops/matmul/matmul_cpu.h"

namespace millrace::ops::chain {

inline constexpr int kMaxRows = 4;  // of x
inline constexpr int kMaxProducts = kMaxChain;
inline constexpr int kMultiplying = 8;  // warps
inline constexpr int kFinishing = 4;    // warps, which take units by turns
inline constexpr int kWarps = kMultiplying + 1 + kFinishing;
inline constexpr int kUnit = 8;            // outputs of a row of x that a block makes at once
inline constexpr int kStageBytes = 16384;  // of the ring
inline constexpr int kMaxStages = 12;
/// Stages that are under way at once: what keeps memory busy. With more of them everything else
/// that blocks read and write takes longer.
inline constexpr int kInFlight = 4;
inline constexpr int kChunk = 64;     // elements of K that swizzled rows have
inline constexpr int kXPadding = 64;  // bytes: rows that lanes read at once lie in other banks

/// One product. A unit is 8 weight rows; gated: 8 of the gate, the same 8 of up.
struct Product {
  CUtensorMap weight;  // {64, K / 64, rows, 2 halves of a gated one or 1}
  MatmulJob job;
  MatmulNorm norm;
  int units = 0;

  /// Of K, in a stage.
  __host__ __device__ int chunks() const { return job.gated ? kMultiplying : 2 * kMultiplying; }
};

struct Chain {
  Product products[kMaxProducts];
  int count = 0;
  int stages = 0;    // of the ring
  int x_bytes = 0;   // of x and the norm's weight in shared memory
  int counters = 0;  // whose counters
};

/// What a block does next.
struct Piece {
  int product, unit;

  static constexpr int kNone = -1;
  __device__ int packed() const { return product << 24 | unit; }
  __device__ static Piece of(int packed) { return {packed >> 24, packed & 0xffffff}; }
};

/// Starts to copy a stage of weight rows to shared memory; `barrier` counts its bytes.
__device__ inline void copy_stage(uint32_t to, const CUtensorMap& map, uint32_t barrier, int row,
                                  int chunk, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %5, %4, %3}], [%2], %6;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(0), "r"(row), "r"(chunk), "l"(policy)
      : "memory");
}

/// Starts to copy `bytes` (a multiple of 16) to shared memory; `barrier` counts them.
__device__ inline void copy_bytes(uint32_t to, const void* from, int bytes, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(barrier)
      : "memory");
}

/// What this thread knows of memory, by its ordinary accesses, its copies know, too.
__device__ inline void order_before_copies() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ inline uint64_t evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// What this thread, and those it met, wrote is seen by who finds it counted by read_count().
__device__ inline void count_up(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(counter))
               : "memory");
}

__device__ inline unsigned read_count(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(value)
               : "l"(__cvta_generic_to_global(counter))
               : "memory");
  return value;
}

/// 16 bytes that another block may have written in this launch: never from the first-level cache.
__device__ inline uint4 load_shared_by_blocks(const void* from) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  return v;
}

}  // namespace millrace::ops::chain
