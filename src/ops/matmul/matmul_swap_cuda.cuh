// How matmul_swap_cuda.cu cuts a product, and how warps add up the pieces of a tile. For .cu files.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops::swap {

inline constexpr int kStripRows = 16;   // of the weight: those of a warp in a product of wgmma
inline constexpr int kGroupStrips = 4;  // at most, of a warpgroup
inline constexpr int kMaxStrips = 2 * kGroupStrips;  // of a tile
inline constexpr int kMaxBlocks = 256;

/// A tile is so many strips, one half for each warpgroup. Blocks have whole tiles, or a piece of
/// one: a part of the steps along K.
struct SwapCut {
  int strips = 0;            // of a tile
  int tiles = 0, steps = 0;  // steps of each tile
  int pieces = 1;            // of a tile
  int blocks = 1;

  /// The first strip of a warpgroup. The second one has as many, or one more.
  __host__ __device__ int group_begin(int warpgroup) const { return warpgroup * strips / 2; }
  __host__ __device__ int most_group_strips() const { return (strips + 1) / 2; }
  /// The first step of a block, where the steps of all tiles lie behind each other.
  __host__ __device__ int begin(int block) const {
    return pieces > 1 ? static_cast<int>(int64_t{block} * steps / pieces)
                      : static_cast<int>(int64_t{block} * tiles / blocks) * steps;
  }
};

inline int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// What decides on a cut beside the weight's size: rows of x, elements of K in a step.
struct SwapSteps {
  int tokens, depth;
};

/// An estimate of a cut's microseconds on an H200: what comes to a multiprocessor from memory, and
/// with x from the second-level cache; the products of a step, which have 64 weight rows each,
/// however many are needed; what memory gives to all; adding up takes some time at the end.
inline double time_of(const SwapCut& cut, const SwapSteps& of) {
  constexpr double kMemory = 4.6e6, kCache = 23e6;      // bytes per microsecond, of all
  constexpr double kWeightAlone = 41e3, kAlone = 48e3;  // of a multiprocessor
  constexpr double kStep = 0.22, kProduct = 9.5e-3, kToken = 0.13e-3;
  constexpr double kJoin = 1.1, kJoined = 60e3;
  const double tile_rows = cut.strips * kStripRows;
  const double weight_bytes = tile_rows * of.depth * 2;
  const double x_bytes = of.tokens * of.depth * 2.0;
  const double fetched = std::max(weight_bytes / kWeightAlone, (weight_bytes + x_bytes) / kAlone);
  const double products = kStep + 2 * (of.depth / 16) * (kProduct + of.tokens * kToken);
  const int longest = ceil_div(cut.tiles, cut.blocks) * ceil_div(cut.steps, cut.pieces);
  const double steps = static_cast<double>(cut.tiles) * cut.steps;
  const double all = steps * (weight_bytes / kMemory + x_bytes / kCache);
  const double join = kJoin + cut.pieces * (tile_rows * 4 * of.tokens) / kJoined;
  return std::max(longest * std::max(fetched, products), all) + (cut.pieces > 1 ? join : 0);
}

/// Tiles of any height, whole or in pieces: the best of these for so many multiprocessors.
inline SwapCut cut_product(int64_t weight_rows, int64_t depth, const SwapSteps& of,
                           int multiprocessors) {
  SwapCut best;
  double best_time = std::numeric_limits<double>::infinity();
  const int most = std::min(multiprocessors, kMaxBlocks);
  const int steps = ceil_div(depth, of.depth);
  const auto offer = [&](const SwapCut& cut) {
    const double time = time_of(cut, of);
    if (time >= best_time) return;
    best_time = time;
    best = cut;
  };
  for (int strips = 2; strips <= kMaxStrips; ++strips) {
    const int tiles = ceil_div(weight_rows, int64_t{strips} * kStripRows);
    offer({strips, tiles, steps, 1, ceil_div(tiles, ceil_div(tiles, most))});
    for (int pieces = 2; pieces <= std::min(steps, most / tiles); ++pieces)
      offer({strips, tiles, steps, pieces, pieces * tiles});
  }
  return best;
}

/// Pieces of a strip of a tile whose sums are stored. Zeros between launches.
static __device__ unsigned stored_pieces[kNumberedQueues][kMaxBlocks][kMaxStrips];

/// What warps of different blocks need to add up the pieces of a tile.
struct SwapJoin {
  float4* partials;  // [blocks, strips of a tile, floats of a thread / 4, kWarp]
  int queue;         // whose counters this launch uses
};

/// Floats of the sums that are stored by all blocks.
inline int64_t partial_floats(const SwapCut& cut, int tokens) {
  return cut.pieces > 1 ? int64_t{cut.blocks} * cut.strips * kStripRows * tokens : 0;
}

/// Where this lane's sums of a block's piece of a strip lie.
template <int kCount>
__device__ inline float4* partial_at(const SwapCut& cut, const SwapJoin& join, int block,
                                     int strip) {
  return join.partials + (int64_t{block} * cut.strips + strip) * (kCount / 4) * kWarp +
         threadIdx.x % kWarp;
}

/// Counts a piece of a strip as stored. Returns how many were before.
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

/// sums = the pieces of blocks `first` ... `last` of a strip, in that order.
template <int kCount>
__device__ inline void add_pieces(const SwapCut& cut, const SwapJoin& join, int first, int last,
                                  int strip, float (&sums)[kCount]) {
  constexpr int kPacks = kCount / 4;
  constexpr int kAtOnce = kPacks <= 4 ? 4 : kPacks <= 8 ? 2 : 1;  // pieces whose loads fly together
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i] = 0;
#pragma unroll 1
  for (int block = first; block <= last; block += kAtOnce) {
    float4 parts[kAtOnce][kPacks];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      // Behind the last one stands the first one again, which is not added.
      const int from = block + j <= last ? block + j : first;
      const float4* part = partial_at<kCount>(cut, join, from, strip);
#pragma unroll
      for (int i = 0; i < kPacks; ++i)
        parts[j][i] = __ldcg(part + i * kWarp);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (block + j > last) break;
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

/// This warp has the sums of a piece of a strip of a tile. True if it is the last one to have them:
/// `sums` then are those of the whole K. After wait_for_predecessor().
template <int kCount>
__device__ inline bool join_pieces(const SwapCut& cut, const SwapJoin& join, int tile, int strip,
                                   float (&sums)[kCount]) {
  float4* to = partial_at<kCount>(cut, join, static_cast<int>(blockIdx.x), strip);
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i)
    to[i * kWarp] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
  unsigned* counter = &stored_pieces[join.queue][tile][strip];
  if (count_piece(counter) != static_cast<unsigned>(cut.pieces - 1)) return false;
  if (threadIdx.x % kWarp == 0) *counter = 0;  // for the next launch
  add_pieces(cut, join, tile * cut.pieces, (tile + 1) * cut.pieces - 1, strip, sums);
  return true;
}

}  // namespace millrace::ops::swap
