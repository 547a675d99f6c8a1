// How matmul_swap_cuda.cu cuts a product, and how warps add up the pieces of a tile. For .cu files.
#pragma once

#include <cstdint>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops::swap {

inline constexpr int kTileRows = 128;  // of the weight
inline constexpr int kPair = 2;        // blocks, whose tiles lie side by side
inline constexpr int kPairRows = kPair * kTileRows;
inline constexpr int kStepDepth = 64;  // elements of K in a step
inline constexpr int kWarps = 8;       // that multiply
inline constexpr int kStripRows = kTileRows / kWarps;
inline constexpr int kMaxShares = 128;

/// The steps along K of all pairs of tiles, one pair after the other, in `shares` equal parts. Two
/// blocks, a tile of the pair each, have a share. Parts begin at multiples of `unit` steps.
struct SwapCut {
  int pairs = 0, steps = 0;  // steps of each pair
  int shares = 1;
  int unit = 1;

  __host__ __device__ int64_t units() const { return int64_t{pairs} * steps / unit; }
  __host__ __device__ int begin(int share) const {
    return static_cast<int>(share * units() / shares) * unit;
  }
  /// The share that has this step.
  __host__ __device__ int owner(int step) const {
    return static_cast<int>(((step / unit + int64_t{1}) * shares - 1) / units());
  }
};

/// Pieces of a tile whose sums are stored, by the share that has its first one: for each warp of
/// each block of the pair. Zeros between launches.
static __device__ unsigned stored_pieces[kNumberedQueues][kMaxShares][kPair][kWarps];

/// What warps of different blocks need to add up the pieces of a tile.
struct SwapJoin {
  float4* partials;  // [shares, kPair, 2, kWarps, floats of a thread / 4, kWarp]
  int queue;         // whose counters this launch uses
};

/// Floats of the sums that are stored by all blocks: a share has two pieces at most, one that
/// begins its tile and one that does not.
inline int64_t partial_floats(const SwapCut& cut, int tokens) {
  return int64_t{cut.shares} * kPair * 2 * kTileRows * tokens;
}

/// Where this lane's sums of a piece lie.
template <int kCount>
__device__ inline float4* partial_at(const SwapJoin& join, int share, bool begins_tile) {
  const int rank = static_cast<int>(blockIdx.x) % kPair;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int slot = (share * kPair + rank) * 2 + (begins_tile ? 1 : 0);
  return join.partials + (int64_t{slot} * kWarps + warp) * (kCount / 4) * kWarp +
         threadIdx.x % kWarp;
}

/// Counts a piece of this warp's strip as stored. Returns how many were before.
__device__ inline unsigned count_piece(unsigned* counter) {
  unsigned before = 0;
  __syncwarp();
  if (threadIdx.x % kWarp == 0) {
    // What the warp has stored is there before the count, what others have stored after it.
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
  }
  before = __shfl_sync(0xffffffffu, before, 0);
  __syncwarp();
  return before;
}

/// sums = the pieces of shares `first` to `last` of this warp's strip, added in that order.
template <int kCount>
__device__ inline void add_pieces(const SwapJoin& join, int first, int last,
                                  float (&sums)[kCount]) {
  constexpr int kPacks = kCount / 4;
  constexpr int kAtOnce = kPacks <= 4 ? 4 : kPacks <= 8 ? 2 : 1;  // pieces whose loads fly together
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i] = 0;
#pragma unroll 1
  for (int share = first; share <= last; share += kAtOnce) {
    float4 parts[kAtOnce][kPacks];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      // Behind the last one stands the first one again, which is not added.
      const int from = share + j <= last ? share + j : first;
      const float4* part = partial_at<kCount>(join, from, from == first);
#pragma unroll
      for (int i = 0; i < kPacks; ++i)
        parts[j][i] = __ldcg(part + i * kWarp);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (share + j > last) break;
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        sums[4 * i] += parts[j][i].x;
        sums[4 * i + 1] += parts[j][i].y;
        sums[4 * i + 2] += parts[j][i].z;
        sums[4 * i + 3] += parts[j][i].w;
      }
    }
  }
}

/// This warp has the sums of a piece of its strip of a tile. True if it is the last one to have
/// them: `sums` then are those of the whole K. After wait_for_predecessor().
template <int kCount>
__device__ inline bool join_pieces(const SwapCut& cut, const SwapJoin& join, int share, int pair,
                                   float (&sums)[kCount]) {
  const int first = cut.owner(pair * cut.steps);
  const int last = cut.owner((pair + 1) * cut.steps - 1);
  float4* to = partial_at<kCount>(join, share, share == first);
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i)
    to[i * kWarp] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
  unsigned* counter = &stored_pieces[join.queue][first][blockIdx.x % kPair][threadIdx.x / kWarp];
  if (count_piece(counter) != static_cast<unsigned>(last - first)) return false;
  if (threadIdx.x % kWarp == 0) *counter = 0;  // for the next launch
  add_pieces(join, first, last, sums);
  return true;
}

}  // namespace millrace::ops::swap
