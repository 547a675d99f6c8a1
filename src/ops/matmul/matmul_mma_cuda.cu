// Many rows on tensor cores: tiles of x and of the weight go through a ring of stages in shared
// memory, 64 elements of K each; the sums stay in registers. Every output's sum takes K in the same
// order whatever the tile's shape, so that the shape may follow the number of rows.
#include "ops/common/mma_tiles_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {
namespace {

using LargeTiles = TileShape<128, 256, 64, 64, 4, 1>;
using MediumTiles = TileShape<128, 128, 64, 64, 3, 2>;
using SmallTiles = TileShape<64, 64, 32, 32, 6, 2>;
using NarrowTiles = TileShape<64, 32, 16, 32, 8, 2>;

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

/// The largest tiles that give most multiprocessors one, and that they have memory for.
template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  constexpr int64_t kEnoughBlocks = 100;
  const auto fills = [&]<typename Shape>(Shape) {
    return job.rows > Shape::kM / 2 && Shape::blocks(job.rows, job.cols) >= kEnoughBlocks &&
           Shape::kSharedBytes <= device::shared_bytes_of_block();
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
