// How matmul_swap_cuda.cu cuts a product, and how warps add up the pieces of a tile. For .cu files.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops::swap {

inline constexpr int kTileRows = 128;  // of the weight
inline constexpr int kBoxDepth = 64;   // elements of K in a box
inline constexpr int kWarps = 8;       // that multiply
inline constexpr int kStripRows = kTileRows / kWarps;
inline constexpr int kMaxBlocks = 256;

/// The steps along K of all tiles, one tile after the other, are divided into equal shares, which
/// begin at multiples of `unit` steps. A block has a share.
struct SwapCut {
  int tiles = 0, steps = 0;  // steps of each tile
  int shares = 1;
  int unit = 1;

  __host__ __device__ int64_t units() const { return int64_t{tiles} * steps / unit; }
  __host__ __device__ int begin(int share) const {
    return static_cast<int>(share * units() / shares) * unit;
  }
  /// The share that has this step.
  __host__ __device__ int owner(int step) const {
    return static_cast<int>(((step / unit + int64_t{1}) * shares - 1) / units());
  }
  __host__ __device__ bool has_equal_pieces() const { return shares % tiles == 0; }
  /// Whether tiles are in pieces.
  __host__ __device__ bool divides_tiles() const { return unit < steps; }
};

inline int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// An estimate of a cut's microseconds on an H200, where a tile is in `pieces` pieces: what a
/// multiprocessor can fetch of the weight, what it can fetch in all, and what memory gives to all;
/// adding up takes some time at the end. Measured with 96 to 132 blocks: each gets less while all
/// fetch, and shares in four pieces are slower than two equal ones (6144 x 4096).
inline double time_of(const SwapCut& cut, int pieces, int tokens, int step_depth) {
  constexpr double kMemory = 4.6e6, kOfOne = 80e3, kWeightOfOne = 39e3;  // bytes per microsecond
  constexpr double kJoin = 2, kJoined = 60e3;              // microseconds; bytes per microsecond
  const double tile_bytes = kTileRows * step_depth * 2.0;  // of a step
  const double step_bytes = tile_bytes + tokens * step_depth * 2;
  const double step = std::max(tile_bytes / kWeightOfOne, step_bytes / kOfOne);
  const double longest = static_cast<double>(ceil_div(cut.units(), cut.shares)) * cut.unit * step;
  const double steps = static_cast<double>(cut.units()) * cut.unit;
  const int joins = cut.has_equal_pieces() ? 1 : pieces - 1;
  const double join = kJoin * joins + pieces * (kTileRows * 4.0 * tokens) / kJoined;
  return std::max(longest, steps * tile_bytes / kMemory) + (pieces > 1 ? join : 0);
}

/// Ways to cut a product, the one of the lowest estimate first.
struct SwapCuts {
  struct Estimated {
    SwapCut cut;
    double time = std::numeric_limits<double>::infinity();
  };
  std::array<Estimated, 3> cuts;
  int count = 0;

  /// The cut at `place`, or the last one.
  const SwapCut& at(int place) const {
    return cuts[static_cast<size_t>(std::min(place, count - 1))].cut;
  }
};

/// Whole tiles, tiles in equal pieces, and equal shares that begin anywhere, for `most` blocks.
inline SwapCuts cut_product(int64_t cols, int64_t depth, int tokens, int step_depth, int most) {
  const int tiles = ceil_div(cols, kTileRows);
  const int steps = ceil_div(depth, step_depth);
  SwapCuts::Estimated whole, equal, shares;
  whole.cut = {tiles, steps, ceil_div(tiles, ceil_div(tiles, most)), steps};
  whole.time = time_of(whole.cut, 1, tokens, step_depth);
  // Three pieces where only four divide K came out slower by an eighth than four (4096 x 14336).
  for (int pieces = 2; pieces * tiles <= most && pieces <= steps; ++pieces) {
    if (steps % pieces != 0) continue;
    const SwapCut cut = {tiles, steps, pieces * tiles, 1};
    const double time = time_of(cut, pieces, tokens, step_depth);
    if (time < equal.time) equal = {cut, time};
  }
  if (most <= int64_t{tiles} * steps && steps > 1) {
    shares.cut = {tiles, steps, most, 1};
    shares.time =
        time_of(shares.cut, std::min(steps, ceil_div(most, tiles) + 1), tokens, step_depth);
  }
  SwapCuts result = {.cuts = {whole, equal, shares}};
  std::ranges::stable_sort(result.cuts, {}, &SwapCuts::Estimated::time);
  for (const SwapCuts::Estimated& e : result.cuts)
    result.count += std::isfinite(e.time) ? 1 : 0;
  return result;
}

/// Pieces of a tile whose sums are stored, by the block that has the first one, for each warp.
/// Zeros between launches.
static __device__ unsigned stored_pieces[kNumberedQueues][kMaxBlocks][kWarps];

/// What warps of different blocks need to add up the pieces of a tile.
struct SwapJoin {
  float4* partials;  // [blocks, 2, kWarps, floats of a thread / 4, kWarp]
  int queue;         // whose counters this launch uses
};

/// Floats of the sums that are stored by all blocks: a block has two pieces at most, one that
/// begins its tile and one that does not.
inline int64_t partial_floats(const SwapCut& cut, int tokens) {
  return cut.divides_tiles() ? int64_t{cut.shares} * 2 * kTileRows * tokens : 0;
}

/// Where this lane's sums of a block's piece lie.
template <int kCount>
__device__ inline float4* partial_at(const SwapJoin& join, int block, bool begins_tile) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int slot = block * 2 + (begins_tile ? 1 : 0);
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

/// sums = the pieces of blocks first .. last of this warp's strip, in that order.
template <int kCount>
__device__ inline void add_pieces(const SwapJoin& join, int first, int last,
                                  float (&sums)[kCount]) {
  constexpr int kPacks = kCount / 4;
  constexpr int kAtOnce = 4;  // pieces whose loads fly together
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
      const float4* part = partial_at<kCount>(join, from, from == first);
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

/// This warp has the sums of a piece of its strip of a tile. True if it is the last one to have
/// them: `sums` then are those of the whole K. After wait_for_predecessor().
template <int kCount>
__device__ inline bool join_pieces(const SwapCut& cut, const SwapJoin& join, int tile,
                                   float (&sums)[kCount]) {
  const auto block = static_cast<int>(blockIdx.x);
  const int first = cut.owner(tile * cut.steps);
  const int last = cut.owner((tile + 1) * cut.steps - 1);
  float4* to = partial_at<kCount>(join, block, block == first);
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i)
    to[i * kWarp] = {sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]};
  unsigned* counter = &stored_pieces[join.queue][first][threadIdx.x / kWarp];
  if (count_piece(counter) != static_cast<unsigned>(last - first)) return false;
  if (threadIdx.x % kWarp == 0) *counter = 0;  // for the next launch
  add_pieces(join, first, last, sums);
  return true;
}

}  // namespace millrace::ops::swap
