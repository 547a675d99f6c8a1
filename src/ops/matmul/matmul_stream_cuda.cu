// Few rows on Hopper's tensor cores, at the speed of memory: the weight is streamed once. A tile is
// 64 or 128 weight rows, the operand of wgmma that has 64 rows; rows of x are its columns, padded
// to 8, 16, ... In every block one thread keeps a ring of stages in shared memory full by TMA, and
// fills it with the weight before the kernel before has ended.
//
// Time is bytes: all blocks get equally many. Where there are too few tiles for that, the blocks of
// a cluster divide K, and add up their sums in order. A product's cut follows from N and K; the
// order of a sum has nothing to do with the number of rows.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "device/cuda/tensor_map.h"
#include "ops/common/hopper.cuh"
#include "ops/common/streamed_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_stream_cuda";
constexpr int kMaxStreamRows = 64;
constexpr int kBoxDepth = 64;    // elements of K in a box: rows of 128 bytes
constexpr int kStepDepth = 128;  // where K is divided, for stages of one and of two boxes alike
constexpr int kRowBytes = hopper::kSwizzledRow;
constexpr int kGroupRows = 64;  // of the weight, that a warpgroup multiplies
constexpr int kMaxCluster = 8;  // blocks
constexpr int kMaxSplit = kMaxCluster;

/// Tiles of kGroups x 64 weight rows and kColumns rows of x; stages of kBoxes x 64 elements of K.
template <int kColumns_, int kGroups_, int kBoxes_, int kStages_, int kShare_ = 1>
struct StreamShape {
  static constexpr int kColumns = kColumns_, kGroups = kGroups_, kBoxes = kBoxes_;
  static constexpr int kStages = kStages_;
  static constexpr int kShare = kShare_;  // tiles that share copies of x, where clusters allow it
  static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kWeightBox = kRows * kRowBytes;
  static constexpr int kXBox = kColumns * kRowBytes;
  static constexpr int kStageBytes = kBoxes * (kWeightBox + kXBox);
  static constexpr int kSumsStride = kRows + 4;  // floats, against bank conflicts
  static constexpr int kSumsAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kSumsAt + kColumns * kSumsStride * 4;
  static constexpr int kSharedBytes = kBarriersAt + (2 * kStages + 2) * 8;
  static constexpr int kMultiplying = kGroups * hopper::kWarpgroup;  // threads
  static constexpr int kThreads = kMultiplying + kWarp;
  static_assert(kSharedBytes <= 227 * 1024 && kColumns % (8 * kShare) == 0);
};

/// How a product is cut.
struct StreamCut {
  int tiles = 0;
  int steps = 0;     // along K, of kStepDepth
  int split = 1;     // blocks of a cluster that divide the steps of a tile
  int share = 1;     // tiles of a cluster, side by side: they share what is copied of x
  int clusters = 0;  // each takes every `clusters`-th group of such tiles
};

/// The shared memory of a block: stages, sums [column][weight row], and barriers.
template <typename Shape>
struct StreamMemory {
  uint32_t base;

  __device__ uint32_t weight(int slot) const { return base + slot * Shape::kStageBytes; }
  __device__ uint32_t x(int slot) const { return weight(slot) + Shape::kBoxes * Shape::kWeightBox; }
  __device__ uint32_t sums() const { return base + Shape::kSumsAt; }
  /// The stage is there: one arrival, and the bytes of both operands.
  __device__ uint32_t full(int slot) const { return base + Shape::kBarriersAt + slot * 8; }
  /// The stage is used up here, and in the blocks that share x: one arrival of every multiplying
  /// warp.
  __device__ uint32_t empty(int slot) const { return full(slot) + Shape::kStages * 8; }
  /// The sums of all blocks of the cluster are there: one arrival of each.
  __device__ uint32_t summed() const { return full(2 * Shape::kStages); }
  /// No block reads this one's sums any more: one arrival of each.
  __device__ uint32_t read() const { return summed() + 8; }
};

/// The part of the work that is this block's. Blocks of a cluster are numbered rank + split * mate.
struct StreamPart {
  int rank, split;          // which part of K, of how many
  int mate, share;          // which of the cluster's tiles, of how many
  int tile, tile_step;      // the first tile, and how far to the next
  int tiles;                // how many; the last one may lie outside
  int first_stage, stages;  // of each

  __device__ StreamPart(const StreamCut& cut, int stage_boxes) {
    split = cut.split;
    share = cut.share;
    const int in_cluster = static_cast<int>(blockIdx.x % (split * share));
    const int cluster = static_cast<int>(blockIdx.x / (split * share));
    rank = in_cluster % split;
    mate = in_cluster / split;
    tile = cluster * share + mate;
    tile_step = cut.clusters * share;
    tiles = ((cut.tiles + share - 1) / share - cluster + cut.clusters - 1) / cut.clusters;
    const int step_stages = kStepDepth / kBoxDepth / stage_boxes;
    first_stage = cut.steps * rank / split * step_stages;
    stages = cut.steps * (rank + 1) / split * step_stages - first_stage;
  }

  /// The block with another part of the same tile's K, or with the same part of another tile's.
  __device__ int block_of_rank(int other) const { return mate * split + other; }
  __device__ int block_of_mate(int other) const { return other * split + rank; }
  __device__ bool is_alone() const { return split * share == 1; }
};

/// Of one thread: copies the stages of all tiles of this block, in order.
template <typename Shape>
class StreamCopies {
 public:
  __device__ StreamCopies(const StreamMemory<Shape>& memory, const StreamPart& part,
                          const CUtensorMap& weight, const CUtensorMap& x)
      : memory_(memory), part_(part), weight_(weight), x_(x), total_(part.tiles * part.stages) {
    for (int i = 0; i < part.share; ++i)
      mates_ |= 1U << part.block_of_mate(i);
  }

  /// Before wait_for_predecessor().
  __device__ void fill_with_weight() const {
    for (int i = 0; i < min(total_, Shape::kStages); ++i)
      copy_weight(i, i);
  }

  /// After it.
  __device__ void run() const {
    for (int i = 0; i < min(total_, Shape::kStages); ++i)
      copy_x(i, i);
    int slot = 0, phase = 0;
    for (int i = Shape::kStages; i < total_; ++i) {
      hopper::wait_barrier(memory_.empty(slot), phase);
      copy_weight(i, slot);
      copy_x(i, slot);
      if (++slot == Shape::kStages) {
        slot = 0;
        phase ^= 1;
      }
    }
  }

 private:
  __device__ int first_k(int i) const {
    return (part_.first_stage + i % part_.stages) * Shape::kBoxes * kBoxDepth;
  }

  __device__ void copy_weight(int i, int slot) const {
    const int row = (part_.tile + i / part_.stages * part_.tile_step) * Shape::kRows;
    const int k = first_k(i);
    hopper::arrive_expecting(memory_.full(slot), Shape::kStageBytes);
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
      copy_streamed_box(memory_.weight(slot) + box * Shape::kWeightBox, weight_, memory_.full(slot),
                        k + box * kBoxDepth, row);
    }
  }

  __device__ void copy_x(int i, int slot) const {
    const int k = first_k(i);
    const int columns = Shape::kColumns / part_.share;  // that this block brings, to all its mates
    const int first = part_.mate * columns;
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
      const uint32_t to = memory_.x(slot) + box * Shape::kXBox + first * kRowBytes;
      if (part_.share == 1) {
        hopper::copy_box(to, x_, memory_.full(slot), k + box * kBoxDepth, 0);
      } else {
        stream::copy_box_to_blocks(to, x_, memory_.full(slot), k + box * kBoxDepth, first, mates_);
      }
    }
  }

  const StreamMemory<Shape>& memory_;
  const StreamPart& part_;
  const CUtensorMap& weight_;
  const CUtensorMap& x_;
  int total_;           // stages
  uint32_t mates_ = 0;  // bits of the blocks that share x
};

template <typename T, int kN>
__device__ void multiply_columns(float (&sums)[kN / 2], uint64_t weight, uint64_t x, bool add) {
  if constexpr (kN <= 32) {
    stream::multiply_few<T, kN>(sums, weight, x, add);
  } else {
    hopper::multiply<T, kN, false>(sums, weight, x, add);
  }
}

/// Where a multiplying warp is in the ring.
struct StreamPlace {
  int slot = 0, phase = 0;
};

/// sums = this warpgroup's 64 weight rows, of this block's part of K, times all columns.
template <typename T, typename Shape>
__device__ void multiply_part(const StreamMemory<Shape>& memory, const StreamPart& part,
                              StreamPlace& place, float (&sums)[Shape::kColumns / 2]) {
  const int group = threadIdx.x / hopper::kWarpgroup;
  const auto release = [&](int slot) {
    const auto lane = static_cast<int>(threadIdx.x % kWarp);
    if (lane >= part.share) return;
    if (part.share == 1) {
      hopper::arrive(memory.empty(slot));
    } else {
      stream::give_back(memory.empty(slot), part.block_of_mate(lane));
    }
  };
  int last_slot = 0;
#pragma unroll 1
  for (int stage = 0; stage < part.stages; ++stage) {
    hopper::wait_barrier(memory.full(place.slot), place.phase);
    const uint32_t weight = memory.weight(place.slot) + group * kGroupRows * kRowBytes;
    const uint32_t x = memory.x(place.slot);
    hopper::start_products();
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
#pragma unroll
      for (int k = 0; k < kBoxDepth; k += 16) {
        multiply_columns<T, Shape::kColumns>(
            sums, hopper::k_major(weight + box * Shape::kWeightBox + 2 * k),
            hopper::k_major(x + box * Shape::kXBox + 2 * k), stage > 0 || box > 0 || k > 0);
      }
    }
    hopper::commit_products();
    hopper::wait_products<1>();  // the stage before is no longer read
    if (stage > 0) release(last_slot);
    last_slot = place.slot;
    if (++place.slot == Shape::kStages) place = {0, place.phase ^ 1};
  }
  hopper::wait_products<0>();
  hopper::pin(sums);
  release(last_slot);
}

/// This thread's sums to shared memory.
template <typename Shape>
__device__ void store_sums(const float (&sums)[Shape::kColumns / 2], float* to) {
  const int lane = threadIdx.x % kWarp;
  const int row = threadIdx.x / kWarp * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < Shape::kColumns / 2; ++i) {
    const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    to[column * Shape::kSumsStride + row + i / 2 % 2 * 8] = sums[i];
  }
}

/// Writes this block's share of a tile, whose weight rows are a part of the tile's: eights of
/// neighbours, added over the blocks of the cluster in order.
template <typename Shape>
__device__ void write_share(const StreamMemory<Shape>& memory, const MatmulJob& job,
                            const StreamPart& part, int tile) {
  const int eights = Shape::kRows / part.split / 8;
  const bool whole = job.cols % 8 == 0;
  const int count = eights * static_cast<int>(job.rows);
  for (int i = threadIdx.x; i < count; i += Shape::kMultiplying) {
    const int t = i / eights;
    const int row = (part.rank * eights + i - t * eights) * 8;
    const int64_t n = int64_t{tile} * Shape::kRows + row;
    if (n >= job.cols) continue;
    const uint32_t at = memory.sums() + (t * Shape::kSumsStride + row) * 4;
    alignas(16) float sums[8] = {};
    for (int rank = 0; rank < part.split; ++rank) {
      const float4 low = stream::load_from_block(at, part.block_of_rank(rank));
      const float4 high = stream::load_from_block(at + 16, part.block_of_rank(rank));
      const float add[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int j = 0; j < 8; ++j)
        sums[j] += add[j];
    }
    if (whole) {
      write_eight(job, t, n, sums);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (n + j < job.cols) write_out(job, t, n + j, sums[j]);
      }
    }
  }
}

/// Of the multiplying warps: all tiles of this block.
template <typename T, typename Shape>
__device__ void multiply_tiles(const StreamMemory<Shape>& memory, const MatmulJob& job,
                               const StreamPart& part, float* sums_memory) {
  constexpr int kBarrier = 1;
  const auto thread = static_cast<int>(threadIdx.x);
  const bool is_divided = part.split > 1;
  StreamPlace place;
  float sums[Shape::kColumns / 2];
  for (int i = 0; i < part.tiles; ++i) {
    multiply_part<T>(memory, part, place, sums);
    if (is_divided && i > 0) stream::wait_for_blocks(memory.read(), (i - 1) % 2);
    store_sums<Shape>(sums, sums_memory);
    hopper::sync_named(kBarrier, Shape::kMultiplying);
    if (is_divided) {
      if (thread < part.split) stream::hand_over(memory.summed(), part.block_of_rank(thread));
      stream::wait_for_blocks(memory.summed(), i % 2);
    }
    write_share(memory, job, part, part.tile + i * part.tile_step);
    hopper::sync_named(kBarrier, Shape::kMultiplying);
    if (is_divided && thread < part.split)
      stream::give_back(memory.read(), part.block_of_rank(thread));
  }
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    matmul_stream_kernel(const __grid_constant__ MatmulJob job,
                         const __grid_constant__ CUtensorMap weight_map,
                         const __grid_constant__ CUtensorMap x_map,
                         const __grid_constant__ StreamCut cut) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const StreamMemory<Shape> memory{hopper::address_in_shared(bytes)};
  const StreamPart part(cut, Shape::kBoxes);
  const StreamCopies<Shape> copies(memory, part, weight_map, x_map);
  const bool copies_boxes = threadIdx.x == Shape::kMultiplying;
  if (copies_boxes) {
    for (int i = 0; i < Shape::kStages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.empty(i), part.share * Shape::kMultiplying / kWarp);
    }
    hopper::init_barrier(memory.summed(), part.split);
    hopper::init_barrier(memory.read(), part.split);
    hopper::publish_barriers();
    hopper::order_before_async();
    copies.fill_with_weight();
  }
  __syncwarp();
  if (part.is_alone()) {
    __syncthreads();
  } else {
    stream::meet_cluster();
  }
  device::wait_for_predecessor();
  if (threadIdx.x < Shape::kMultiplying) {
    multiply_tiles<T>(memory, job, part, reinterpret_cast<float*>(bytes + Shape::kSumsAt));
  } else if (copies_boxes) {
    copies.run();
  }
  __syncwarp();
  if (!part.is_alone()) stream::leave_cluster();  // others may still use this block's memory
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// The least number of clusters that take as many groups of tiles each as any other number would
/// give to some.
int even_clusters(int groups, int cluster_blocks) {
  const int most = std::max(1, device::multiprocessors() / cluster_blocks);
  return static_cast<int>(ceil_div(groups, ceil_div(groups, most)));
}

/// Divides K so that all blocks get equally much, on as many multiprocessors as it takes to use the
/// memory. By N, K and the number of multiprocessors alone: the order of sums follows from it.
int split_of(int tiles, int steps) {
  constexpr double kEnough = 90;       // multiprocessors
  constexpr double kSplitCost = 0.02;  // of adding up sums, for every doubling
  int best = 1;
  double best_score = 0, cost = 1;
  for (int split = 1; split <= std::min(kMaxSplit, steps); split *= 2, cost -= kSplitCost) {
    const int clusters = even_clusters(tiles, split);
    const double even = tiles / static_cast<double>(clusters * ceil_div(tiles, clusters));
    const double score = std::min(1.0, clusters * split / kEnough) * even * cost;
    if (score <= best_score) continue;
    best_score = score;
    best = split;
  }
  return best;
}

/// `share`: tiles that should share x.
StreamCut cut_product(int64_t cols, int64_t depth, int tile_rows, int share) {
  StreamCut cut;
  cut.tiles = static_cast<int>(ceil_div(cols, tile_rows));
  cut.steps = static_cast<int>(ceil_div(depth, kStepDepth));
  cut.split = split_of(cut.tiles, cut.steps);
  cut.share = std::min(share, kMaxCluster / cut.split);
  cut.clusters =
      even_clusters(static_cast<int>(ceil_div(cut.tiles, cut.share)), cut.split * cut.share);
  return cut;
}

template <typename T, typename Shape>
void run_shape(const Launch& launch, const MatmulJob& job) {
  static const bool allowed =
      device::allow_shared(kName, matmul_stream_kernel<T, Shape>, Shape::kSharedBytes);
  CHECK(allowed);
  const auto map = [&](const void* data, int64_t rows, int box_rows) {
    return device::make_matrix_map(data, rows, job.depth, box_rows, kBoxDepth,
                                   device::Swizzle::k128Bytes);
  };
  const StreamCut cut = cut_product(job.cols, job.depth, Shape::kRows, Shape::kShare);
  const int blocks = cut.split * cut.share;
  device::launch_clusters(kName, *launch.queue, static_cast<unsigned>(blocks),
                          dim3(static_cast<unsigned>(cut.clusters * blocks)), dim3(Shape::kThreads),
                          Shape::kSharedBytes, matmul_stream_kernel<T, Shape>, job,
                          map(job.weight, job.cols, Shape::kRows),
                          map(job.x, job.rows, Shape::kColumns / cut.share), cut);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  if (job.rows <= 8) return run_shape<T, StreamShape<8, 1, 2, 5>>(launch, job);
  if (job.rows <= 16) return run_shape<T, StreamShape<16, 1, 2, 5>>(launch, job);
  if (job.rows <= 32) return run_shape<T, StreamShape<32, 1, 2, 4, 2>>(launch, job);
  return run_shape<T, StreamShape<64, 1, 1, 5, 2>>(launch, job);
}

}  // namespace

std::string matmul_stream_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  if (launch.in[0].dim(0) > kMaxStreamRows) return str("more than ", kMaxStreamRows, " rows");
  return mma_cuda_why_not(launch);
}

void matmul_stream_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) { run_typed<T>(launch, job); });
}

}  // namespace millrace::ops
