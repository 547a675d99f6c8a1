// Many rows on tensor cores. One block sorts the slots by expert and lists tiles of up to 64 slots
// that share an expert; the blocks of a second kernel, as many as there could be tiles, each take
// one, or nothing. Nobody but the GPU needs to know how many there are.
//
//   slots by expert    e0: 5 1 9 | e2: 0 3 | e7: 2 4 6 7 8 ...
//   tiles              {e0, from 0, 3}  {e2, from 3, 2}  {e7, from 5, 64}  {e7, from 69, ...}
//
// The order of slots within an expert differs from run to run. It decides in which row of a tile a
// slot is computed, and not how.
#include <algorithm>

#include "ops/common/mma_tiles_cuda.cuh"
#include "ops/common/vector_access_cuda.cuh"
#include "ops/moe_matmul/moe_matmul.h"
#include "ops/moe_matmul/moe_matmul_cuda.cuh"
#include "ops/moe_matmul/moe_matmul_tactics.h"

namespace millrace::ops {
namespace {

using Shape = TileShape<64, 64, 32, 32, 6, 2>;
constexpr int kSortThreads = 1024;
constexpr int kMaxExpertsCuda = kSortThreads;  // one thread each

struct Tile {
  int32_t expert, begin, rows, unused;
};

/// The workspace.
struct Sorted {
  int32_t* tile_count;  // 1
  Tile* tiles;          // [max_tiles]
  int32_t* slots;       // [slots] by expert

  static int64_t max_tiles(const MoeMatmulJob& job) {
    return job.slots / Shape::kM + std::min(job.slots, job.experts);
  }
  static int64_t bytes(const MoeMatmulJob& job) {
    return 16 + max_tiles(job) * static_cast<int64_t>(sizeof(Tile)) + job.slots * 4;
  }
  Sorted(const MoeMatmulJob& job, void* workspace)
      : tile_count(static_cast<int32_t*>(workspace)),
        tiles(reinterpret_cast<Tile*>(tile_count + 4)),
        slots(reinterpret_cast<int32_t*>(tiles + max_tiles(job))) {}
};

/// values[i] becomes the sum of values[0 .. i], over all threads of the block.
__device__ void scan(int32_t* values) {
  for (int step = 1; step < kSortThreads; step *= 2) {
    const int32_t before = static_cast<int>(threadIdx.x) >= step ? values[threadIdx.x - step] : 0;
    __syncthreads();
    values[threadIdx.x] += before;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kSortThreads)
    sort_slots_kernel(const int32_t* ids, int64_t count, Sorted sorted) {
  __shared__ int32_t ends[kSortThreads];     // of each expert's slots
  __shared__ int32_t tiles[kSortThreads];    // of all experts up to this one
  __shared__ int32_t cursors[kSortThreads];  // where the expert's next slot goes
  const auto expert = static_cast<int32_t>(threadIdx.x);
  device::let_successor_start();
  device::wait_for_predecessor();
  ends[expert] = 0;
  __syncthreads();
  for (int64_t slot = expert; slot < count; slot += kSortThreads)
    atomicAdd(&ends[ids[slot]], 1);
  __syncthreads();
  const int32_t rows = ends[expert];
  const int32_t my_tiles = (rows + Shape::kM - 1) / Shape::kM;
  tiles[expert] = my_tiles;
  __syncthreads();
  scan(ends);
  scan(tiles);
  const int32_t begin = ends[expert] - rows;
  cursors[expert] = begin;
  for (int32_t i = 0; i < my_tiles; ++i) {
    sorted.tiles[tiles[expert] - my_tiles + i] = {expert, begin + i * Shape::kM,
                                                  min(Shape::kM, rows - i * Shape::kM), 0};
  }
  if (expert == kSortThreads - 1) *sorted.tile_count = tiles[expert];
  __syncthreads();
  for (int64_t slot = expert; slot < count; slot += kSortThreads)
    sorted.slots[atomicAdd(&cursors[ids[slot]], 1)] = static_cast<int32_t>(slot);
}

/// This thread's share of the rows of x and of the weight that a tile reads.
template <typename T>
struct TileRows {
  static constexpr int kStep = Shape::kThreads / kPacks;  // rows between a thread's copies
  static constexpr int kCopies = Shape::kM / kStep;
  static_assert(Shape::kM == Shape::kN && Shape::kM % kStep == 0);

  const T* x[kCopies];
  const T* weight[kCopies];
  bool has_x[kCopies], has_weight[kCopies];

  __device__ TileRows(const MoeMatmulJob& job, const Tile& tile, const int32_t* slots,
                      int64_t first_col) {
    const int row = threadIdx.x / kPacks;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      has_x[i] = row + i * kStep < tile.rows;
      const int64_t slot = has_x[i] ? slots[tile.begin + row + i * kStep] : 0;
      x[i] = static_cast<const T*>(job.x) + slot / job.slots_per_x * job.depth;
      const int64_t col = first_col + row + i * kStep;
      has_weight[i] = col < job.cols;
      weight[i] = static_cast<const T*>(job.weight) +
                  (tile.expert * job.cols + (has_weight[i] ? col : 0)) * job.depth;
    }
  }

  /// Starts the copies of 64 elements from `first_k` on; zeros beyond K and where there is no row.
  __device__ void copy(int64_t first_k, int64_t depth, uint32_t stage) const {
    const int pack = threadIdx.x % kPacks;
    const int row = threadIdx.x / kPacks;
    const int64_t k = first_k + pack * 8;
    const bool inside = k < depth;
    const int64_t at = inside ? k : 0;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      copy_async(stage + stage_offset(row + i * kStep, pack), x[i] + at, inside && has_x[i]);
      copy_async(stage + Shape::kM * kRowBytes + stage_offset(row + i * kStep, pack),
                 weight[i] + at, inside && has_weight[i]);
    }
  }
};

__device__ void write_tile(const MoeMatmulJob& job, const Tile& tile, const int32_t* slots,
                           int64_t first_col, const float* sums) {
#pragma unroll 1
  for (int i = threadIdx.x; i < tile.rows * Shape::kN; i += Shape::kThreads) {
    const int row = i / Shape::kN;
    const int col = i % Shape::kN;
    if (first_col + col >= job.cols) continue;
    write_expert_out(job, slots[tile.begin + row], tile.expert, first_col + col,
                     sums[row * Shape::kOutStride + col]);
  }
}

template <typename T>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    moe_matmul_mma_kernel(const __grid_constant__ MoeMatmulJob job, Sorted sorted) {
  extern __shared__ __align__(128) unsigned char shared[];
  device::let_successor_start();
  device::wait_for_predecessor();
  if (static_cast<int>(blockIdx.y) >= *sorted.tile_count) return;
  const Tile tile = sorted.tiles[blockIdx.y];
  const int64_t first_col = int64_t{blockIdx.x} * Shape::kN;
  const TileRows<T> rows(job, tile, sorted.slots, first_col);
  const uint32_t ring = shared_address_of(shared);
  const int64_t stages = (job.depth + kStageDepth - 1) / kStageDepth;
  constexpr int kAhead = Shape::kStages - 1;
#pragma unroll 1
  for (int i = 0; i < kAhead; ++i) {
    rows.copy(int64_t{i} * kStageDepth, job.depth, ring + i * Shape::kStageBytes);
    commit_copies();
  }
  Sums<Shape> sums = {};
  int slot = 0, free_slot = kAhead;
#pragma unroll 1
  for (int64_t stage = 0; stage < stages; ++stage) {
    wait_for_copies<kAhead - 1>();
    __syncthreads();  // the stage is there for all threads, and all are done with the one before
    if (stage + kAhead < stages) {
      rows.copy((stage + kAhead) * kStageDepth, job.depth, ring + free_slot * Shape::kStageBytes);
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
  write_tile(job, tile, sorted.slots, first_col, staged);
}

template <typename T>
void run_typed(const Launch& launch, const MoeMatmulJob& job) {
  static const bool allowed =
      device::allow_shared("moe_matmul_mma_cuda", moe_matmul_mma_kernel<T>, Shape::kSharedBytes);
  CHECK(allowed);
  const Sorted sorted(job, launch.workspace);
  device::launch_kernel("moe_matmul_sort_cuda", *launch.queue, dim3(1), dim3(kSortThreads), 0,
                        sort_slots_kernel, job.ids, job.slots, sorted);
  const dim3 grid(blocks_for(job.cols, Shape::kN), static_cast<unsigned>(Sorted::max_tiles(job)));
  device::launch_kernel("moe_matmul_mma_cuda", *launch.queue, grid, dim3(Shape::kThreads),
                        Shape::kSharedBytes, moe_matmul_mma_kernel<T>, job, sorted);
}

}  // namespace

std::string moe_matmul_mma_cuda_why_not(const Launch& launch, const device::Properties&) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  if (job.x_type != ir::DType::kBF16 && job.x_type != ir::DType::kF16) {
    return "x is not bf16 or f16";
  }
  if (job.weight_type != job.x_type) return "the weight is not of x's type";
  if (job.depth == 0 || job.depth % 8 != 0) return "K is not a multiple of 8";
  if (job.experts > kMaxExpertsCuda) return str("more than ", kMaxExpertsCuda, " experts");
  constexpr int64_t kMaxSlots = int64_t{1} << 21;  // 65535 tiles
  return job.slots > kMaxSlots ? "too many rows" : "";
}

int64_t moe_matmul_mma_cuda_workspace(const Launch& launch, const device::Properties&) {
  return Sorted::bytes(moe_matmul_job(launch));
}

void moe_matmul_mma_cuda(const Launch& launch) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  if (job.slots == 0 || job.cols == 0) return;
  if (job.x_type == ir::DType::kBF16) {
    run_typed<__nv_bfloat16>(launch, job);
  } else {
    run_typed<__half>(launch, job);
  }
}

}  // namespace millrace::ops
