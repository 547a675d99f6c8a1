// What the kernel of matmul_chain_cuda.cu consists of: sizes, places in shared memory, and how
// blocks of a grid tell each other what is done and what came out.
#pragma once

#include <cstdint>

#include <cuda.h>

#include "ops/common/hopper.cuh"
#include "ops/common/streamed_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"
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
inline constexpr int kChunk = 64;  // elements of K that swizzled rows have
inline constexpr int kStageDepth = kStageBytes / 2 / kUnit;  // of K
inline constexpr int kChunks = kStageDepth / kChunk;         // two for each multiplying warp
static_assert(kChunks == 2 * kMultiplying);
inline constexpr int kXPadding = 64;  // bytes: rows that lanes read at once lie in other banks
inline constexpr int kSumThreads = kMultiplying * kWarp;
/// A named barrier: the finishing warps know whose turn it is, and the first multiplying warp may
/// leave.
inline constexpr int kTurnRead = 2;
inline constexpr int kTurnReaders = (kFinishing + 1) * kWarp;
inline constexpr unsigned kAllLanes = 0xffffffffu;

/// One product. A unit is 8 weight rows; gated: 8 of the gate, and the same 8 of up.
struct Product {
  CUtensorMap weight;  // {64, K / 64, rows, 2 halves of a gated one or 1}
  MatmulJob job;
  MatmulNorm norm;
  int units = 0;
  /// Where its outputs lie among those that are handed over to the next product as its x, or -1.
  int handed = -1;

  /// Of a unit. Those of a gated one take turns: of the gate, of up.
  __device__ int stages() const {
    const int of_k = (static_cast<int>(job.depth) + kStageDepth - 1) / kStageDepth;
    return job.gated ? 2 * of_k : of_k;
  }
};

struct Chain {
  Product products[kMaxProducts];
  int count = 0;
  int stages = 0;   // of the ring
  int x_bytes = 0;  // of x and the norm's weight in shared memory
  int queue = 0;    // whose counters and exchange
  int set = 0;      // of the two of counters
  bool exchanges = false;
};

/// What a block does next.
struct Piece {
  int product, unit;

  static constexpr int kNone = -1;
  __device__ int packed() const { return product << 24 | unit; }
  __device__ static Piece of(int packed) { return {packed >> 24, packed & 0xffffff}; }
};

/// Counters of a launch. All are zero between launches. A launch may begin to copy before the last
/// one of the queue has ended, but not before the one before that has: so two sets take turns.
struct Counters {
  unsigned claimed;             // units
  unsigned done[kMaxProducts];  // units whose outputs are written
  unsigned through;             // blocks that need no counter any more
};

/// Outputs on their way to all blocks, which need them as the next x: no counter says that they are
/// there, every element does so itself. It is the complement of the element, and zero before: all
/// bits set are a NaN that no conversion makes. Launches of a queue take turns with two of them:
/// one clears what the next one uses. Whose turn it is stands in device memory, since captured
/// graphs follow each other in any order.
struct Exchange {
  static constexpr int kElements = 1 << 17;
  alignas(16) uint16_t outs[2][kElements];
  unsigned turn;

  __device__ uint16_t* of_launch(int later) {
    return outs[(*static_cast<volatile unsigned*>(&turn) + later) % 2];
  }
};

/// Places in shared memory.
struct Memory {
  static constexpr int kPieces = 512;   // ints: of the stages, then of the finishing warps' turns
  static constexpr int kSquares = 768;  // floats [8]
  static constexpr int kSums = 1024;    // float4 [4 turns, 8 multiplying warps, 32 lanes]
  static constexpr int kX = kSums + kFinishing * kMultiplying * kWarp * 16;

  uint32_t base;
  int x_bytes;
  unsigned char* bytes;

  __device__ uint32_t full(int slot) const { return base + slot * 8; }
  __device__ uint32_t empty(int slot) const { return full(kMaxStages + slot); }
  __device__ uint32_t started(int turn) const { return full(2 * kMaxStages + turn); }
  __device__ uint32_t summed(int turn) const { return started(kFinishing + turn); }
  __device__ uint32_t added(int turn) const { return summed(kFinishing + turn); }
  __device__ uint32_t x_there() const { return added(kFinishing); }
  __device__ uint32_t x() const { return base + kX; }
  __device__ uint32_t stage(int slot) const { return base + kX + x_bytes + slot * kStageBytes; }
  __device__ int& piece_of_stage(int slot) const {
    return reinterpret_cast<int*>(bytes + kPieces)[slot];
  }
  __device__ int& piece_of_turn(int turn) const { return piece_of_stage(kMaxStages + turn); }
  __device__ float* squares() const { return reinterpret_cast<float*>(bytes + kSquares); }
  /// Sums of a unit, of one multiplying warp.
  __device__ float4* sums(int turn, int warp) const {
    return reinterpret_cast<float4*>(bytes + kSums) + (turn * kMultiplying + warp) * kWarp;
  }
};

/// A place in a ring.
struct Place {
  int slot = 0, phase = 0;
  __device__ void advance(int stages) {
    if (++slot < stages) return;
    slot = 0;
    phase ^= 1;
  }
};

__device__ inline uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

/// Starts to copy a stage of weight rows to shared memory; `barrier` counts its bytes.
__device__ inline void copy_stage(uint32_t to, const CUtensorMap& map, uint32_t barrier, int half,
                                  int row, int chunk, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %6, %5, %4}], [%2], %7;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(0), "r"(half), "r"(row), "r"(chunk), "l"(policy)
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

/// Puts an output, as its bits, where other blocks wait for it.
__device__ inline void hand_over(uint16_t* to, uint16_t bits) {
  constexpr uint16_t kNobodyMakes = 0xffff, kOtherNan = 0x7fff;
  const uint16_t complement = ~(bits == kNobodyMakes ? kOtherNan : bits);
  asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(__cvta_generic_to_global(to)),
               "h"(complement)
               : "memory");
}

/// Eight of them, as they were given, and whether all are there.
__device__ inline bool take(const uint16_t* from, uint4& bits) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(from))
               : "memory");
  bits = make_uint4(~v.x, ~v.y, ~v.z, ~v.w);
  const auto has_zero = [](uint32_t pair) { return __vcmpeq2(pair, 0U); };
  return (has_zero(v.x) | has_zero(v.y) | has_zero(v.z) | has_zero(v.w)) == 0;
}

}  // namespace millrace::ops::chain
