// Many rows on tensor cores: tiles of x and of the weight go through a ring of stages in shared
// memory, 64 elements of K each; the sums stay in registers. Every output's sum takes K in the same
// order whatever the tile's shape, so that the shape may follow the number of rows.
#include "ops/common/tensor_core_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kStageDepth = 64;  // elements of K in a stage: rows of 128 bytes
constexpr int kRowBytes = 2 * kStageDepth;
constexpr int kPacks = kRowBytes / 16;  // in a row of a stage

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

using LargeTiles = TileShape<128, 256, 64, 64, 4, 1>;
using MediumTiles = TileShape<128, 128, 64, 64, 3, 2>;
using SmallTiles = TileShape<64, 64, 32, 32, 6, 2>;
using NarrowTiles = TileShape<64, 32, 16, 32, 8, 2>;

/// 16-byte packs lie at their place XOR the row's low bits: eight rows of one pack, which ldmatrix
/// reads at once, are in different banks.
__device__ uint32_t stage_offset(int row, int pack) {
  return static_cast<uint32_t>(row * kRowBytes + (pack ^ (row & 7)) * 16);
}

/// Starts the copies of rows [first_row, + kRows) at [first_k, + 64) of a matrix [rows, depth];
/// zeros outside.
template <int kRows, int kThreads, typename T>
__device__ void copy_tile(const T* matrix, int64_t rows, int64_t depth, int64_t first_row,
                          int64_t first_k, uint32_t stage) {
  constexpr int kStep = kThreads / kPacks;  // rows between a thread's copies
  static_assert(kRows % kStep == 0);
  const int pack = threadIdx.x % kPacks;
  const int row = threadIdx.x / kPacks;
  const int64_t k = first_k + pack * 8;
  const T* from = matrix + (first_row + row) * depth + k;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep) {
    const bool inside = k < depth && first_row + row + i < rows;
    copy_async(stage + stage_offset(row + i, pack), inside ? from + i * depth : matrix, inside);
  }
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

/// All threads of the block, from staged sums: 8 neighbouring outputs at a time.
template <typename Shape>
__device__ void write_tile(const MatmulJob& job, const float* sums, int64_t first_t,
                           int64_t first_n) {
  constexpr int kEights = Shape::kN / 8;
  const bool whole = job.cols % 8 == 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < Shape::kM * kEights; i += Shape::kThreads) {
    const int row = i / kEights;
    const int col = i % kEights * 8;
    const int64_t t = first_t + row;
    const int64_t n = first_n + col;
    if (t >= job.rows || n >= job.cols) continue;
    const float* from = sums + row * Shape::kOutStride + col;
    if (whole) {
      write_eight(job, t, n, from);
    } else {
#pragma unroll 1
      for (int j = 0; j < 8 && n + j < job.cols; ++j)
        write_out(job, t, n + j, from[j]);
    }
  }
}

/// The tile of this block. Eight tiles of x take turns before the weight's next tile comes, so that
/// blocks that run at the same time share what they read.
template <typename Shape>
__device__ void place_block(const MatmulJob& job, int64_t* first_t, int64_t* first_n) {
  constexpr int64_t kTogether = 8;
  const int64_t tiles_m = (job.rows + Shape::kM - 1) / Shape::kM;
  const int64_t tiles_n = (job.cols + Shape::kN - 1) / Shape::kN;
  const int64_t part = blockIdx.x / (kTogether * tiles_n);
  const int64_t in_part = blockIdx.x % (kTogether * tiles_n);
  const int64_t height = min(tiles_m - part * kTogether, kTogether);
  *first_t = (part * kTogether + in_part % height) * Shape::kM;
  *first_n = in_part / height * Shape::kN;
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    matmul_mma_kernel(const __grid_constant__ MatmulJob job) {
  extern __shared__ __align__(128) unsigned char shared[];
  device::let_successor_start();
  int64_t first_t = 0, first_n = 0;
  place_block<Shape>(job, &first_t, &first_n);
  const uint32_t ring = shared_address_of(shared);
  const int64_t stages = (job.depth + kStageDepth - 1) / kStageDepth;
  const auto copy_x = [&](int64_t stage, int slot) {
    copy_tile<Shape::kM, Shape::kThreads>(static_cast<const T*>(job.x), job.rows, job.depth,
                                          first_t, stage * kStageDepth,
                                          ring + slot * Shape::kStageBytes);
  };
  const auto copy_weight = [&](int64_t stage, int slot) {
    copy_tile<Shape::kN, Shape::kThreads>(static_cast<const T*>(job.weight), job.cols, job.depth,
                                          first_n, stage * kStageDepth,
                                          ring + slot * Shape::kStageBytes + Shape::kM * kRowBytes);
  };
  constexpr int kAhead = Shape::kStages - 1;
#pragma unroll 1
  for (int i = 0; i < kAhead; ++i)
    copy_weight(i, i);  // zeros beyond K
  device::wait_for_predecessor();
#pragma unroll 1
  for (int i = 0; i < kAhead; ++i) {
    copy_x(i, i);
    commit_copies();
  }
  Sums<Shape> sums = {};
  int slot = 0, free_slot = kAhead;
#pragma unroll 1
  for (int64_t stage = 0; stage < stages; ++stage) {
    wait_for_copies<kAhead - 1>();
    __syncthreads();  // the stage is there for all threads, and all are done with the one before
    if (stage + kAhead < stages) {
      copy_x(stage + kAhead, free_slot);
      copy_weight(stage + kAhead, free_slot);
    }
    commit_copies();
    multiply_stage<T, Shape>(ring + slot * Shape::kStageBytes, sums);
    free_slot = slot;
    slot = slot + 1 == Shape::kStages ? 0 : slot + 1;
  }
  wait_for_copies<0>();
  __syncthreads();
  auto* staged = reinterpret_cast<float*>(shared);
  stage_sums<Shape>(sums, staged);
  __syncthreads();
  write_tile<Shape>(job, staged, first_t, first_n);
}

template <typename T, typename Shape>
void run_tiles(const Launch& launch, const MatmulJob& job) {
  static const bool allowed =
      device::allow_shared("matmul_mma_cuda", matmul_mma_kernel<T, Shape>, Shape::kSharedBytes);
  CHECK(allowed);
  device::launch_kernel("matmul_mma_cuda", *launch.queue,
                        dim3(static_cast<unsigned>(Shape::blocks(job.rows, job.cols))),
                        dim3(Shape::kThreads), Shape::kSharedBytes, matmul_mma_kernel<T, Shape>,
                        job);
}

/// The largest tiles that give most multiprocessors one.
template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  constexpr int64_t kEnoughBlocks = 100;
  const auto fills = [&]<typename Shape>(Shape) {
    return job.rows > Shape::kM / 2 && Shape::blocks(job.rows, job.cols) >= kEnoughBlocks;
  };
  if (fills(LargeTiles{})) {
    run_tiles<T, LargeTiles>(launch, job);
  } else if (fills(MediumTiles{})) {
    run_tiles<T, MediumTiles>(launch, job);
  } else if (SmallTiles::blocks(job.rows, job.cols) >= kEnoughBlocks) {
    run_tiles<T, SmallTiles>(launch, job);
  } else {
    run_tiles<T, NarrowTiles>(launch, job);
  }
}

}  // namespace

std::string matmul_mma_cuda_why_not(const Launch& launch, const device::Properties&) {
  return mma_cuda_why_not(launch);
}

void matmul_mma_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) { run_typed<T>(launch, job); });
}

}  // namespace millrace::ops
