// Many rows on Hopper's tensor cores. In every block one thread keeps a ring of stages in shared
// memory full by TMA (64 elements of K of the tile's rows of x and of the weight), and two
// warpgroups of 64 rows each multiply them (wgmma) and write. Blocks stay and take tile after tile,
// so that the ring fills with the next tile while results are written. Two blocks are a cluster:
// what their tiles have in common is read once, half by each, and copied to both.
//
// Of a gated product's weight, groups of 8 rows of the gate and of up alternate in a tile, which
// then makes half as many outputs.
//
// Every output's sum takes K in the same order, 16 elements at a time, whatever the tile's shape:
// the shape may follow the number of rows.
#include <algorithm>
#include <limits>

#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_outputs_cuda.cuh"
#include "ops/matmul/matmul_weight_map_cuda.cuh"
#include "ops/matmul/matmul_wgmma_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kStageDepth = 64;  // elements of K in a stage: rows of 128 bytes
constexpr int kRowBytes = hopper::kSwizzledRow;
constexpr int kGroups = 2;      // warpgroups that multiply
constexpr int kGroupRows = 64;  // of each
constexpr int kTileRows = kGroups * kGroupRows;
constexpr int kThreads = (kGroups + 1) * hopper::kWarpgroup;
constexpr int kMultiplyingWarps = kGroups * hopper::kWarpgroup / kWarp;

/// Tiles of 128 x N outputs.
template <int kN_, int kStages_>
struct TileShape {
  static constexpr int kN = kN_, kStages = kStages_;
  static constexpr int kXBytes = kTileRows * kRowBytes;
  static constexpr int kStageBytes = kXBytes + kN * kRowBytes;
  static constexpr int kOutAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kOutAt + kMultiplyingWarps * kOutFloats * 4;
  static constexpr int kSharedBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kStageBytes % 1024 == 0 && kSharedBytes <= 227 * 1024);
};

using WideTiles = TileShape<256, 4>;
using MiddleTiles = TileShape<192, 5>;
using SquareTiles = TileShape<128, 6>;
using NarrowTiles = TileShape<64, 8>;

/// The shared memory of a block: stages, staged outputs, and two barriers for each stage.
template <typename Shape>
struct Shared {
  uint32_t base;

  __device__ uint32_t x(int slot) const { return base + slot * Shape::kStageBytes; }
  __device__ uint32_t weight(int slot) const { return x(slot) + Shape::kXBytes; }
  /// The stage is there: one arrival, and the bytes of both operands.
  __device__ uint32_t full(int slot) const { return base + Shape::kBarriersAt + slot * 8; }
  /// Both blocks are done with it (each copies to both): one arrival of every multiplying warp.
  __device__ uint32_t empty(int slot) const { return full(slot) + Shape::kStages * 8; }
};

struct Maps {
  const CUtensorMap& x;
  const CUtensorMap& weight;
  bool gated;  // how the weight's map is made
};

__device__ int cluster_rank() {
  return static_cast<int>(blockIdx.x % kClusterBlocks);
}
__device__ int cluster_index() {
  return static_cast<int>(blockIdx.x / kClusterBlocks);
}
__device__ int cluster_count() {
  return static_cast<int>(gridDim.x / kClusterBlocks);
}

/// Starts the copies of rows [row, + kRows) at [k, + 64) of an operand, by halves. If the cluster
/// shares them, this block brings one half to both blocks.
template <int kRows>
__device__ void copy_operand(const CUtensorMap& map, uint32_t to, uint32_t barrier, int k, int row,
                             bool is_shared, bool gated = false) {
  constexpr int kHalf = kRows / 2;
  const int rank = cluster_rank();
  if (is_shared) {
    to += rank * kHalf * kRowBytes;
    row += rank * kHalf;
    if (gated) return copy_box_to_both(to, map, barrier, k, 0, 0, row / kGatedPair);
    return copy_box_to_both(to, map, barrier, k, row);
  }
  for (int half = 0; half < 2; ++half, to += kHalf * kRowBytes, row += kHalf) {
    if (gated) {
      hopper::copy_box(to, map, barrier, k, 0, 0, row / kGatedPair);
    } else {
      hopper::copy_box(to, map, barrier, k, row);
    }
  }
}

/// Of one thread: copies the stages of all tiles of this block, in order.
template <typename Shape>
__device__ void copy_stages(const Shared<Shape>& shared, const Maps& maps, const TilePairs& pairs,
                            int stages) {
  int pair = cluster_index();
  int2 tile = pairs.place(pair, cluster_rank());
  const auto copy_weight = [&](int slot, int stage) {
    copy_operand<Shape::kN>(maps.weight, shared.weight(slot), shared.full(slot),
                            stage * kStageDepth, tile.y * Shape::kN, pairs.is_column, maps.gated);
  };
  const auto copy_x = [&](int slot, int stage) {
    copy_operand<kTileRows>(maps.x, shared.x(slot), shared.full(slot), stage * kStageDepth,
                            tile.x * kTileRows, !pairs.is_column);
  };
  // The weight does not depend on the kernel before.
  const int ahead = min(stages, Shape::kStages);
  for (int i = 0; i < ahead; ++i) {
    hopper::arrive_expecting(shared.full(i), Shape::kStageBytes);
    copy_weight(i, i);
  }
  device::wait_for_predecessor();
  for (int i = 0; i < ahead; ++i)
    copy_x(i, i);
  RingPlace<Shape::kStages> ring{ahead % Shape::kStages, ahead / Shape::kStages};
  int stage = ahead;
  while (true) {
    for (; stage < stages; ++stage, ring.advance()) {
      hopper::wait_barrier(shared.empty(ring.slot), ring.phase ^ 1);
      hopper::arrive_expecting(shared.full(ring.slot), Shape::kStageBytes);
      copy_weight(ring.slot, stage);
      copy_x(ring.slot, stage);
    }
    pair += cluster_count();
    if (pair >= pairs.count()) return;
    tile = pairs.place(pair, cluster_rank());
    stage = 0;
  }
}

/// This warp is done with a stage: tells both blocks.
template <typename Shape>
__device__ void release(const Shared<Shape>& shared, int slot) {
  const int lane = threadIdx.x % kWarp;
  if (lane < kClusterBlocks) arrive_in_block(shared.empty(slot), lane);
}

/// A tile, or a half of one, that lies outside: its stages come and go all the same.
template <typename Shape>
__device__ void skip_tile(const Shared<Shape>& shared, int stages,
                          RingPlace<Shape::kStages>& ring) {
  for (int stage = 0; stage < stages; ++stage, ring.advance()) {
    hopper::wait_barrier(shared.full(ring.slot), ring.phase);
    release(shared, ring.slot);
  }
}

/// sums = this warpgroup's 64 rows of x times the tile's rows of the weight.
template <typename T, typename Shape>
__device__ void multiply_tile(const Shared<Shape>& shared, int stages,
                              RingPlace<Shape::kStages>& ring, float (&sums)[Shape::kN / 2]) {
  const int group = threadIdx.x / hopper::kWarpgroup;
  int last_slot = 0;
  hopper::pin(sums);
#pragma unroll 1
  for (int stage = 0; stage < stages; ++stage) {
    hopper::wait_barrier(shared.full(ring.slot), ring.phase);
    const uint64_t x = hopper::k_major(shared.x(ring.slot) + group * kGroupRows * kRowBytes);
    const uint64_t weight = hopper::k_major(shared.weight(ring.slot));
    hopper::start_products();
#pragma unroll
    for (int i = 0; i < kStageDepth / 16; ++i) {
      constexpr int kStep = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
      hopper::multiply<T, Shape::kN, false>(sums, x + i * kStep, weight + i * kStep,
                                            i > 0 || stage > 0);
    }
    hopper::commit_products();
    hopper::wait_products<1>();  // the stage before is no longer read
    if (stage > 0) release(shared, last_slot);
    last_slot = ring.slot;
    ring.advance();
  }
  hopper::wait_products<0>();
  hopper::pin(sums);
  release(shared, last_slot);
}

/// Of a warpgroup: multiplies and writes its rows of all tiles of this block.
template <typename T, typename Shape>
__device__ void multiply_stages(const Shared<Shape>& shared, const MatmulJob& job,
                                const TilePairs& pairs, int stages, float* staged) {
  const int warp = threadIdx.x / kWarp;
  const int group = threadIdx.x / hopper::kWarpgroup;
  RingPlace<Shape::kStages> ring;
  for (int pair = cluster_index(); pair < pairs.count(); pair += cluster_count()) {
    const int2 tile = pairs.place(pair, cluster_rank());
    const int64_t first_t = int64_t{tile.x} * kTileRows;
    const int64_t first_n = int64_t{tile.y} * (job.gated ? Shape::kN / 2 : Shape::kN);
    if (first_t + group * kGroupRows >= job.rows || first_n >= job.cols) {
      skip_tile(shared, stages, ring);
      continue;
    }
    float sums[Shape::kN / 2];
    multiply_tile<T>(shared, stages, ring, sums);
    if (job.gated) {
      write_gated_rows(job, sums, first_t + 16 * warp, first_n, Shape::kN / 2,
                       staged + warp * kOutFloats);
    } else {
      write_rows<T>(job, sums, first_t + 16 * warp, first_n, Shape::kN, staged + warp * kOutFloats);
    }
  }
}

template <typename T, typename Shape>
__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(kThreads, 1)
    matmul_wgmma_kernel(const __grid_constant__ MatmulJob job,
                        const __grid_constant__ CUtensorMap x_map,
                        const __grid_constant__ CUtensorMap weight_map,
                        const __grid_constant__ TilePairs pairs) {
  extern __shared__ __align__(1024) unsigned char memory[];
  device::let_successor_start();
  const Shared<Shape> shared{hopper::address_in_shared(memory)};
  if (threadIdx.x == 0) {
    hopper::prefetch_map(weight_map);
    hopper::prefetch_map(x_map);
    for (int i = 0; i < Shape::kStages; ++i) {
      hopper::init_barrier(shared.full(i), 1);
      hopper::init_barrier(shared.empty(i), kClusterBlocks * kMultiplyingWarps);
    }
    hopper::publish_barriers();
  }
  begin_cluster();
  const int stages = static_cast<int>((job.depth + kStageDepth - 1) / kStageDepth);
  if (threadIdx.x >= kGroups * hopper::kWarpgroup) {
    hopper::shrink_registers<40>();
    if (threadIdx.x == kGroups * hopper::kWarpgroup) {
      copy_stages<Shape>(shared, {x_map, weight_map, job.gated}, pairs, stages);
    }
  } else {
    hopper::grow_registers<232>();
    device::wait_for_predecessor();
    multiply_stages<T>(shared, job, pairs, stages,
                       reinterpret_cast<float*>(memory + Shape::kOutAt));
  }
  sync_cluster();  // the other block may still copy to this one's memory, or arrive at its barriers
}

/// How a product is cut, and what that costs.
struct Plan {
  int cols = 0;  // of a tile
  TilePairs pairs;
  double cycles = std::numeric_limits<double>::infinity();
};

int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// An estimate from what one multiprocessor does in a cycle: 2048 products, 40 bytes read from the
/// second-level cache. A tile takes some cycles more to write.
Plan make_plan(const MatmulJob& job, int cols, bool is_column, int clusters) {
  int height = ceil_div(job.rows, kTileRows);
  int width = ceil_div(job.weight_rows(), cols);
  int& paired = is_column ? height : width;
  paired = ceil_div(paired, kClusterBlocks);
  Plan plan{.cols = cols, .pairs = {.height = height, .width = width, .is_column = is_column}};
  const double read_rows = is_column ? kTileRows + cols / 2.0 : kTileRows / 2.0 + cols;
  const double products = double{kTileRows} * cols * kStageDepth;
  const double stage = std::max(products / 2048, read_rows * kRowBytes / 40);
  const double tile = stage * ceil_div(job.depth, kStageDepth) + 1000 + 8 * cols;
  plan.cycles = tile * ceil_div(plan.pairs.count(), clusters);
  return plan;
}

Plan best_plan(const MatmulJob& job) {
  const int clusters = device::multiprocessors() / kClusterBlocks;
  Plan best;
  for (const int cols : {256, 192, 128, 64}) {
    for (const bool is_column : {true, false}) {
      const Plan plan = make_plan(job, cols, is_column, clusters);
      if (plan.cycles < best.cycles) best = plan;
    }
  }
  return best;
}

template <typename T, typename Shape>
void run_tiles(const Launch& launch, const MatmulJob& job, const TilePairs& pairs) {
  static const bool allowed =
      device::allow_shared("matmul_wgmma_cuda", matmul_wgmma_kernel<T, Shape>, Shape::kSharedBytes);
  CHECK(allowed);
  const CUtensorMap x_map = device::make_matrix_map(job.x, job.rows, job.depth, kTileRows / 2,
                                                    kStageDepth, device::Swizzle::k128Bytes);
  const int clusters = std::min(pairs.count(), device::multiprocessors() / kClusterBlocks);
  device::launch_kernel("matmul_wgmma_cuda", *launch.queue,
                        dim3(static_cast<unsigned>(clusters * kClusterBlocks)), dim3(kThreads),
                        Shape::kSharedBytes, matmul_wgmma_kernel<T, Shape>, job, x_map,
                        make_weight_map(job, Shape::kN / 2, kStageDepth), pairs);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  const Plan plan = best_plan(job);
  switch (plan.cols) {
    case WideTiles::kN:
      return run_tiles<T, WideTiles>(launch, job, plan.pairs);
    case MiddleTiles::kN:
      return run_tiles<T, MiddleTiles>(launch, job, plan.pairs);
    case SquareTiles::kN:
      return run_tiles<T, SquareTiles>(launch, job, plan.pairs);
    default:
      return run_tiles<T, NarrowTiles>(launch, job, plan.pairs);
  }
}

}  // namespace

std::string matmul_wgmma_cuda_why_not(const Launch& launch, const device::Properties& device) {
  if (device.sm != 90) return "the GPU is not of compute capability 9.0";
  constexpr int64_t kMaxRows = 1 << 22;  // tiles are counted in 32 bits
  if (std::max(launch.in[0].dim(0), launch.in[1].dim(0)) > kMaxRows) return "too many rows";
  return mma_cuda_why_not(launch);
}

bool matmul_wgmma_cuda_gates(const Launch& launch) {
  return launch.out[0].dim(1) % kGatedRows == 0;
}

void matmul_wgmma_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) { run_typed<T>(launch, job); });
}

}  // namespace millrace::ops
