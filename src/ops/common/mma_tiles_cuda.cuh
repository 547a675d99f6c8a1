// Products on tensor cores from a ring of stages in shared memory: 64 elements of K each, rows of x
// in front of rows of the weight; the sums stay in registers. For .cu files.
#pragma once

#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops {

inline constexpr int kStageDepth = 64;  // elements of K in a stage: rows of 128 bytes
inline constexpr int kRowBytes = 2 * kStageDepth;
inline constexpr int kPacks = kRowBytes / 16;  // in a row of a stage

/// How a kernel is cut: block tiles of M x N outputs, warp tiles of WarpM x WarpN.
template <int kM_, int kN_, int kWarpM_, int kWarpN_, int kStages_, int kBlocks_>
struct TileShape {
  static constexpr int kM = kM_, kN = kN_, kWarpM = kWarpM_, kWarpN = kWarpN_;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kBlocks_;  // on a multiprocessor
  static constexpr int kWarpsN = kN / kWarpN;
  static constexpr int kThreads = kM / kWarpM * kWarpsN * kWarp;
  static constexpr int kStageBytes = (kM + kN) * kRowBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kOutStride = kN + 8;  // floats; against bank conflicts
  static_assert(kM * kOutStride * 4 <= kSharedBytes);
  static_assert(kThreads % (8 * kPacks) == 0);
  static constexpr int64_t blocks(int64_t rows, int64_t cols) {
    return ((rows + kM - 1) / kM) * ((cols + kN - 1) / kN);
  }
};

/// 16-byte packs lie at their place XOR the row's low bits: eight rows of one pack, which ldmatrix
/// reads at once, are in different banks.
__device__ inline uint32_t stage_offset(int row, int pack) {
  return static_cast<uint32_t>(row * kRowBytes + (pack ^ (row & 7)) * 16);
}

/// What a warp multiplies at once: 16 elements of K of its rows of x and of the weight.
template <typename Shape>
struct Fragments {
  uint32_t x[Shape::kWarpM / 16][4];
  uint32_t weight[Shape::kWarpN / 16][4];  // two fragments of 8 rows each
};

/// `slice`: which 16 of the stage's elements of K.
template <typename Shape>
__device__ void load_fragments(uint32_t stage, int slice, Fragments<Shape>& to) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int x_row = warp / Shape::kWarpsN * Shape::kWarpM + lane % 16;
  const int x_pack = slice * 2 + lane / 16;
#pragma unroll
  for (int i = 0; i < Shape::kWarpM / 16; ++i)
    load_matrices(to.x[i], stage + stage_offset(x_row + 16 * i, x_pack));
  const int row = warp % Shape::kWarpsN * Shape::kWarpN + lane % 8 + lane / 16 * 8;
  const int pack = slice * 2 + lane / 8 % 2;
  const uint32_t weight = stage + Shape::kM * kRowBytes;
#pragma unroll
  for (int i = 0; i < Shape::kWarpN / 16; ++i)
    load_matrices(to.weight[i], weight + stage_offset(row + 16 * i, pack));
}

template <typename Shape>
using Sums = float[Shape::kWarpM / 16][Shape::kWarpN / 8][4];

template <typename T, typename Shape>
__device__ void multiply_stage(uint32_t stage, Sums<Shape>& sums) {
  constexpr int kSlices = kStageDepth / 16;
  Fragments<Shape> fragments[2];
  load_fragments(stage, 0, fragments[0]);
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
    if (slice + 1 < kSlices) load_fragments(stage, slice + 1, fragments[(slice + 1) % 2]);
    const Fragments<Shape>& now = fragments[slice % 2];
#pragma unroll
    for (int i = 0; i < Shape::kWarpM / 16; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kWarpN / 8; ++j) {
        const uint32_t(&pair)[4] = now.weight[j / 2];
        multiply_add<T>(sums[i][j], now.x[i], {pair[j % 2 * 2], pair[j % 2 * 2 + 1]});
      }
    }
  }
}

/// Sums to shared memory, [kM, kOutStride].
template <typename Shape>
__device__ void stage_sums(const Sums<Shape>& sums, float* shared) {
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int row = warp / Shape::kWarpsN * Shape::kWarpM + lane / 4;
  const int col = warp % Shape::kWarpsN * Shape::kWarpN + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < Shape::kWarpM / 16; ++i) {
#pragma unroll
    for (int j = 0; j < Shape::kWarpN / 8; ++j) {
      float* to = shared + (row + 16 * i) * Shape::kOutStride + col + 8 * j;
      *reinterpret_cast<Pack<float, 2>*>(to) = {sums[i][j][0], sums[i][j][1]};
      *reinterpret_cast<Pack<float, 2>*>(to + 8 * Shape::kOutStride) = {sums[i][j][2],
                                                                        sums[i][j][3]};
    }
  }
}

}  // namespace millrace::ops
