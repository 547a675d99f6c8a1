// Up to 128 rows on Hopper's tensor cores, where there are fewer tiles of outputs than
// multiprocessors: a tile has all rows of x, and K is divided between blocks of a cluster, which
// add up their sums through each other's shared memory. In every block one thread keeps a ring of
// stages full by TMA (64 elements of K of all rows of x and of the tile's weight rows), and fills
// it with the weight before the kernel before has ended; two warpgroups of 64 rows each multiply.
// Blocks whose tiles lie side by side belong to the cluster, too: each copies its part of x to all
// of them.
//
// The sum of an output: K in steps of 16 within a piece, then the pieces in order. How K is cut
// follows from N, K and the GPU.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "device/cuda/occupancy.h"
#include "ops/common/fast_silu_cuda.cuh"
#include "ops/common/hopper.cuh"
#include "ops/common/streamed_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_handed_norm_cuda.cuh"
#include "ops/matmul/matmul_outputs_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"
#include "ops/matmul/matmul_weight_map_cuda.cuh"
#include "ops/matmul/matmul_wgmma_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_split_cuda";
constexpr int kMinRows = 32;     // up to here matmul_swap_cuda is as fast
constexpr int kTileRows = 128;   // of x
constexpr int kStageDepth = 64;  // elements of K in a stage: rows of 128 bytes
constexpr int kRowBytes = hopper::kSwizzledRow;
constexpr int kGroupRows = 64;                // of x, that a warpgroup multiplies
constexpr int kWarps = 8;                     // that multiply
constexpr int kMultiplying = kWarps * kWarp;  // threads
constexpr int kThreads = kMultiplying + kWarp;
constexpr int kHandedThreads = kThreads + kWarp;  // a warp finds the factors of a norm
constexpr int kXBytes = kTileRows * kRowBytes;    // of a stage

/// Tiles of kN weight rows. A cluster has kMates tiles and kSplits pieces of K. On an H200 a launch
/// takes kStart nanoseconds and kStep for each stage of a block, where memory is busy with no
/// other.
template <int kN_, int kStages_, int kSplits_, int kStart_, int kStep_>
struct SplitShape {
  static constexpr int kN = kN_, kStages = kStages_, kSplits = kSplits_, kMates = 2;
  static constexpr int kStart = kStart_, kStep = kStep_;
  static constexpr int kBlocks = kSplits * kMates;  // of a cluster
  static constexpr int kSums = kN / 2;              // of a thread
  static constexpr int kStageBytes = kXBytes + kN * kRowBytes;
  static constexpr int kBarriersAt = kStages * kStageBytes;
  static constexpr int kSharedBytes = kBarriersAt + 2 * kStages * 8;
  // Whole tiles have no registers to spare for it.
  static constexpr bool kHandsOn = kSplits > 1;
  static constexpr int kFactorsAt = kSharedBytes + 8;
  static constexpr int kWeightsAt = kFactorsAt + kTileRows * 4;
  static constexpr int kHandedBytes = kWeightsAt + kN * 4;
  // When all stages are used up, their place is that of sums for other blocks, and of outputs.
  static constexpr int kStagedAt = kSplits > 1 ? kTileRows* kN * 4 : 0;
  // Columns come in pairs of eights (of a gated product one of the gate, one of up).
  static constexpr int kPairs = kN / 16, kMostPairs = (kPairs + kSplits - 1) / kSplits;
  static constexpr int kStagedBytes =
      16 *
      (kOutCols * 4 > kMostPairs * 16 + 16 ? kOutCols * 4 : kMostPairs * 16 + 16);  // of a warp
  static_assert(kStageBytes % 1024 == 0 && kN % 16 == 0);
  static_assert(kStagedAt + kWarps * kStagedBytes <= kBarriersAt);
  static_assert(kHandedBytes <= 208 * 1024, "small kernels need room");
};

/// The shared memory of a block.
template <typename Shape>
struct SplitMemory {
  uint32_t base;

  __device__ uint32_t x(int slot) const { return base + slot * Shape::kStageBytes; }
  __device__ uint32_t weight(int slot) const { return x(slot) + kXBytes; }
  /// The stage is there: one arrival, and the bytes of both operands.
  __device__ uint32_t full(int slot) const { return base + Shape::kBarriersAt + slot * 8; }
  /// All mates are done with it: one arrival of every multiplying warp.
  __device__ uint32_t empty(int slot) const { return full(slot) + Shape::kStages * 8; }
  /// Where norms are handed on: the factors behind it are there.
  __device__ uint32_t factors_there() const { return base + Shape::kSharedBytes; }
  /// Four sums of a thread.
  __device__ uint32_t sums(int four) const {
    return base + (four * kMultiplying + static_cast<int>(threadIdx.x)) * 16;
  }
};

/// Rows of x that are copied: whole groups of swizzled rows for every mate.
__host__ __device__ constexpr int copied_rows(int64_t rows) {
  return static_cast<int>((rows + 15) / 16 * 16);
}

/// What this block computes.
template <typename Shape>
struct SplitPlace {
  int mate, piece;  // of its cluster
  int tile;
  int begin, end;  // stages of K
  int x_rows;      // that are copied, of all mates together

  __device__ SplitPlace(int64_t depth, int64_t rows) {
    const auto block = static_cast<int>(blockIdx.x);
    const int rank = block % Shape::kBlocks;
    const int stages = static_cast<int>((depth + kStageDepth - 1) / kStageDepth);
    mate = rank % Shape::kMates;
    piece = rank / Shape::kMates;
    tile = block / Shape::kBlocks * Shape::kMates + mate;
    begin = stages * piece / Shape::kSplits;
    end = stages * (piece + 1) / Shape::kSplits;
    x_rows = copied_rows(rows);
  }
  __device__ int stages() const { return end - begin; }
  /// The rank of a mate that has the same piece of K.
  __device__ int mate_rank(int of) const { return piece * Shape::kMates + of; }
};

/// Of one thread: copies the block's stages, in order.
template <typename Shape>
class SplitCopies {
 public:
  __device__ SplitCopies(const SplitMemory<Shape>& memory, const SplitPlace<Shape>& place,
                         const CUtensorMap& x, const CUtensorMap& weight, bool gated)
      : memory_(memory), place_(place), x_(x), weight_(weight), gated_(gated) {}

  /// Before wait_for_predecessor().
  __device__ void fill_with_weight() const {
    for (int i = 0; i < ahead(); ++i)
      copy_weight(i, i);
  }

  /// After it, and when the barriers of all mates are there.
  __device__ void run() const {
    for (int i = 0; i < ahead(); ++i)
      copy_x(i, i);
    RingPlace<Shape::kStages> ring;
    for (int i = ahead(); i < place_.stages(); ++i, ring.advance()) {
      hopper::wait_barrier(memory_.empty(ring.slot), ring.phase);
      copy_weight(ring.slot, i);
      copy_x(ring.slot, i);
    }
  }

 private:
  __device__ int ahead() const { return min(place_.stages(), Shape::kStages); }

  __device__ void copy_weight(int slot, int stage) const {
    const int k = (place_.begin + stage) * kStageDepth;
    const uint32_t to = memory_.weight(slot), full = memory_.full(slot);
    hopper::arrive_expecting(full, (Shape::kN + place_.x_rows) * kRowBytes);
    if (gated_) {
      copy_streamed_box(to, weight_, full, k, 0, 0, place_.tile * (Shape::kN / kGatedPair));
    } else {
      copy_streamed_box(to, weight_, full, k, place_.tile * Shape::kN);
    }
  }

  __device__ void copy_x(int slot, int stage) const {
    const int k = (place_.begin + stage) * kStageDepth;
    const uint32_t to = memory_.x(slot), full = memory_.full(slot);
    if constexpr (Shape::kMates > 1) {
      constexpr uint32_t kMates = (1U << Shape::kMates) - 1;
      const int row = place_.mate * (place_.x_rows / Shape::kMates);
      stream::copy_box_to_blocks(to + row * kRowBytes, x_, full, k, row,
                                 kMates << place_.mate_rank(0));
    } else {
      hopper::copy_box(to, x_, full, k, 0);
    }
  }

  const SplitMemory<Shape>& memory_;
  const SplitPlace<Shape>& place_;
  const CUtensorMap& x_;
  const CUtensorMap& weight_;
  bool gated_;
};

/// This warp is done with a stage.
template <typename Shape>
__device__ void release(const SplitMemory<Shape>& memory, const SplitPlace<Shape>& place,
                        int slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (lane < Shape::kMates) stream::give_back(memory.empty(slot), place.mate_rank(lane));
}

/// sums = this warpgroup's 64 rows of x times the tile's weight rows, over the block's piece of K.
template <typename T, typename Shape>
__device__ void multiply_piece(const SplitMemory<Shape>& memory, const SplitPlace<Shape>& place,
                               float (&sums)[Shape::kSums]) {
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  RingPlace<Shape::kStages> ring;
  int last_slot = 0;
#pragma unroll
  for (int i = 0; i < Shape::kSums; ++i)
    sums[i] = 0;
  hopper::pin(sums);
  const bool has_rows = group * kGroupRows < place.x_rows;
  bool is_held = false;  // the stage before
#pragma unroll 1
  for (int stage = 0; stage < place.stages(); ++stage) {
    // Where the copies are behind, what is used up is asked for at once.
    if (is_held && !__any_sync(0xffffffffu, hopper::is_over(memory.full(ring.slot), ring.phase))) {
      hopper::wait_products<0>();
      release(memory, place, last_slot);
      is_held = false;
    }
    hopper::wait_barrier(memory.full(ring.slot), ring.phase);
    if (has_rows) {
      const uint64_t x = hopper::k_major(memory.x(ring.slot) + group * kGroupRows * kRowBytes);
      const uint64_t weight = hopper::k_major(memory.weight(ring.slot));
      hopper::start_products();
#pragma unroll
      for (int i = 0; i < kStageDepth / 16; ++i) {
        constexpr int kNext = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
        hopper::multiply<T, Shape::kN, false>(sums, x + i * kNext, weight + i * kNext, true);
      }
      hopper::commit_products();
      hopper::wait_products<1>();  // the stage before is no longer read
    }
    if (is_held) release(memory, place, last_slot);
    is_held = true;
    last_slot = ring.slot;
    ring.advance();
  }
  hopper::wait_products<0>();
  hopper::pin(sums);
}

/// The columns that a block of a tile adds up and writes, in pairs of eights.
template <typename Shape>
struct SplitPart {
  int begin, count;

  __device__ explicit SplitPart(int piece) {
    begin = Shape::kPairs * piece / Shape::kSplits;
    count = Shape::kPairs * (piece + 1) / Shape::kSplits - begin;
  }
};

/// All threads of the cluster. out = this block's part of the tile's columns, summed over all
/// pieces of K in order.
template <typename Shape>
__device__ void join_pieces(const SplitMemory<Shape>& memory, const SplitPlace<Shape>& place,
                            const float (&sums)[Shape::kSums],
                            float (&out)[Shape::kMostPairs * 8]) {
  const bool multiplies = threadIdx.x < kMultiplying;
  if (multiplies) {
    hopper::sync_named(1, kMultiplying);  // no warp reads stages any more
#pragma unroll
    for (int i = 0; i < Shape::kSums / 4; ++i) {
      asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(memory.sums(i)),
                   "f"(sums[4 * i]), "f"(sums[4 * i + 1]), "f"(sums[4 * i + 2]),
                   "f"(sums[4 * i + 3])
                   : "memory");
    }
  }
  __syncwarp();
  cluster::arrive();
  cluster::wait();
  if (!multiplies) return;
  const SplitPart<Shape> part(place.piece);
#pragma unroll
  for (int i = 0; i < Shape::kMostPairs * 8; ++i)
    out[i] = 0;
#pragma unroll
  for (int piece = 0; piece < Shape::kSplits; ++piece) {
    float4 fours[Shape::kMostPairs * 2];
#pragma unroll
    for (int i = 0; i < Shape::kMostPairs * 2; ++i) {
      fours[i] = i < part.count * 2 ? stream::load_from_block(memory.sums(part.begin * 2 + i),
                                                              piece * Shape::kMates + place.mate)
                                    : float4{};
    }
#pragma unroll
    for (int i = 0; i < Shape::kMostPairs * 2; ++i) {
      out[4 * i] += fours[i].x;
      out[4 * i + 1] += fours[i].y;
      out[4 * i + 2] += fours[i].z;
      out[4 * i + 3] += fours[i].w;
    }
  }
}

/// This warp's 16 rows of a gated product without bias whose outputs have x's type, `pairs` eights
/// of columns from first_n on: a thread has gate and up of its outputs.
template <typename T, int kPairs>
__device__ void write_gated(const MatmulJob& job, const float (&sums)[kPairs * 8], int64_t first_n,
                            int pairs, std::byte* staged) {
  constexpr int kStride = kPairs * 16 + 16;  // bytes of a staged row, against bank conflicts
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int first_t = static_cast<int>(threadIdx.x) / kWarp * 16;
  const auto stage = [&](const auto& activation) {
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        Pack<T, 2> out;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float gate = sums[pair * 8 + row * 2 + i], up = sums[pair * 8 + 4 + row * 2 + i];
          out.at[i] = from_float<T>(activation(gate) * up);
        }
        *reinterpret_cast<Pack<T, 2>*>(staged + (lane / 4 + 8 * row) * kStride + pair * 16 +
                                       lane % 4 * 4) = out;
      }
    }
  };
  if (job.activation == ActivationKind::kSilu) {
    stage([](float x) { return fast_silu(x); });
  } else {
    stage([&](float x) { return activate_called(job.activation, x); });
  }
  __syncwarp();
  const int vectors = min(pairs, static_cast<int>((job.cols - first_n) / 8));
#pragma unroll 1
  for (int at = lane; at < 16 * kPairs; at += kWarp) {
    const int row = at / kPairs, vector = at % kPairs;
    if (first_t + row >= job.rows || vector >= vectors) continue;
    *reinterpret_cast<uint4*>(static_cast<T*>(job.out) + (first_t + row) * job.cols + first_n +
                              vector * 8) =
        *reinterpret_cast<const uint4*>(staged + row * kStride + vector * 16);
  }
}

/// sums = the sums of this warp's rows times the factors of these rows.
template <int kCount>
__device__ void multiply_by_factors(float (&sums)[kCount], const float* factors) {
  const float* of_lane = factors + threadIdx.x / kWarp * 16 + threadIdx.x % kWarp / 4;
  const float low = of_lane[0], high = of_lane[8];
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i] *= i % 4 < 2 ? low : high;
}

/// write_rows(), and hands them on. `weights`: of the norm, from column n on.
template <typename T, int kCount>
__device__ void write_and_hand_on(const MatmulJob& job, const HandedNorm& norm,
                                  const float (&sums)[kCount], int row, int64_t n, int cols,
                                  const float* weights, float* staged) {
  float squares[2] = {};
  write_rows<T>(job, sums, row, n, cols, staged,
                [&](int half, int64_t t, int64_t at, const float(&values)[8]) {
                  squares[half] += hand_on<T>(norm, t * job.cols + at, weights + (at - n), values);
                });
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    squares[half] += __shfl_xor_sync(0xffffffffu, squares[half], 1);
    squares[half] += __shfl_xor_sync(0xffffffffu, squares[half], 2);
    if (lane % 4 == 0) norm.squares[row + lane / 4 + 8 * half] = squares[half];
  }
}

/// Writes this warp's 16 rows of the outputs that begin at weight row `first` of the tiles' order.
template <typename T, int kPairs, bool kHanded, bool kHandsOn>
__device__ void write_sums(const MatmulJob& job, const HandedNorm& norm, float (&sums)[kPairs * 8],
                           int64_t first, int pairs, const float* weights, const float* factors,
                           uint32_t factors_there, std::byte* staged) {
  const int row = static_cast<int>(threadIdx.x) / kWarp * 16;
  const int64_t n = job.gated ? first / 2 : first;
  if (n >= job.cols || row >= job.rows) return;
  auto* const floats = reinterpret_cast<float*>(staged);
  if constexpr (kHanded) {
    if (norm.x_squares != nullptr) {
      hopper::wait_barrier(factors_there, 0);
      multiply_by_factors(sums, factors);
    }
  }
  if constexpr (kHanded && kHandsOn) {
    if (norm.scaled != nullptr) {
      write_and_hand_on<T>(job, norm, sums, row, n, pairs * 16, weights, floats);
      return;
    }
  }
  if (job.gated && job.bias == nullptr && job.out_type == job.x_type) {
    write_gated<T, kPairs>(job, sums, n, pairs, staged);
  } else if (job.gated) {
    write_gated_rows(job, sums, row, n, pairs * 8, floats);
  } else {
    write_rows<T>(job, sums, row, n, pairs * 16, floats);
  }
}

/// kHanded: knows norms that are handed on.
template <typename T, typename Shape, bool kHanded>
__global__ void __launch_bounds__(kHanded ? kHandedThreads : kThreads, 1)
    matmul_split_kernel(const __grid_constant__ MatmulJob job, HandedNorm norm,
                        const __grid_constant__ CUtensorMap x_map,
                        const __grid_constant__ CUtensorMap weight_map) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const SplitMemory<Shape> memory{hopper::address_in_shared(bytes)};
  const SplitPlace<Shape> place(job.depth, job.rows);
  const SplitCopies<Shape> copies(memory, place, x_map, weight_map, job.gated);
  const bool copies_boxes = threadIdx.x == kMultiplying;
  if (copies_boxes) {
    for (int i = 0; i < Shape::kStages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.empty(i), Shape::kMates * kWarps);
    }
    if constexpr (kHanded) hopper::init_barrier(memory.factors_there(), 1);
    hopper::publish_barriers();
    hopper::order_before_async();
    copies.fill_with_weight();
  }
  __syncwarp();
  const int64_t first = int64_t{place.tile} * Shape::kN;
  auto* const factors = reinterpret_cast<float*>(bytes + Shape::kFactorsAt);
  auto* const weights = reinterpret_cast<float*>(bytes + Shape::kWeightsAt);
  if constexpr (kHanded) {
    if (norm.scaled != nullptr && threadIdx.x < Shape::kN && first + threadIdx.x < job.cols)
      weights[threadIdx.x] = norm.weight[first + threadIdx.x];
    // This block's part of the columns.
    norm.squares += (int64_t{place.tile} * Shape::kSplits + place.piece) * kTileRows;
  }
  stream::meet_cluster();
  device::wait_for_predecessor();
  std::byte* const staged = reinterpret_cast<std::byte*>(bytes) + Shape::kStagedAt +
                            threadIdx.x / kWarp * Shape::kStagedBytes;
  float sums[Shape::kSums];
  if (threadIdx.x < kMultiplying) {
    multiply_piece<T>(memory, place, sums);
  } else if (copies_boxes) {
    copies.run();
  } else if (kHanded && threadIdx.x >= kThreads && norm.x_squares != nullptr) {
    find_factors<kTileRows, 32>(norm, job.depth, factors);
    __syncwarp();
    if (threadIdx.x == kThreads) hopper::arrive(memory.factors_there());
  }
  __syncwarp();
  if constexpr (Shape::kSplits > 1) {
    float joined[Shape::kMostPairs * 8];
    join_pieces(memory, place, sums, joined);
    const SplitPart<Shape> part(place.piece);
    if (threadIdx.x < kMultiplying) {
      write_sums<T, Shape::kMostPairs, kHanded, Shape::kHandsOn>(
          job, norm, joined, first + part.begin * 16, part.count, weights + part.begin * 16,
          factors, memory.factors_there(), staged);
    }
  } else if (threadIdx.x < kMultiplying) {
    hopper::sync_named(1, kMultiplying);  // no warp reads stages any more
    write_sums<T, Shape::kPairs, kHanded, Shape::kHandsOn>(
        job, norm, sums, first, Shape::kPairs, weights, factors, memory.factors_there(), staged);
  }
  __syncwarp();
  stream::leave_cluster();  // the others' reads and arrivals still come to this block's memory
}

template <typename T, typename Shape>
int most_clusters() {
  static const int most = [] {
    constexpr auto* kKernel = matmul_split_kernel<T, Shape, false>;
    CHECK(device::reserve_shared(kName, kKernel, Shape::kSharedBytes));
    const int count =
        device::clusters_at_once(kName, kKernel, Shape::kBlocks, kThreads, Shape::kSharedBytes);
    return std::max(count, 1);
  }();
  return most;
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <typename Shape>
int64_t cluster_count(const MatmulJob& job) {
  return ceil_div(ceil_div(job.weight_rows(), Shape::kN), Shape::kMates);
}

/// An estimate of nanoseconds on an H200.
template <typename T, typename Shape>
int64_t time_of(const MatmulJob& job) {
  const int64_t rounds = ceil_div(cluster_count<Shape>(job), most_clusters<T, Shape>());
  const int64_t stages = ceil_div(ceil_div(job.depth, kStageDepth), Shape::kSplits);
  return Shape::kStart + rounds * stages * Shape::kStep;
}

/// How a product is run: as it is, or handing norms on.
struct SplitRun {
  void (*run)(const Launch&, const MatmulJob&, const HandedNorm&) = nullptr;
  int parts = 0;  // of the columns, whose squares are summed; 0: it hands nothing on
};

template <typename T, typename Shape, bool kHanded>
void run_shape(const Launch& launch, const MatmulJob& job, const HandedNorm& norm) {
  constexpr auto* kKernel = matmul_split_kernel<T, Shape, kHanded>;
  constexpr int kBytes = kHanded ? Shape::kHandedBytes : Shape::kSharedBytes;
  constexpr int kCount = kHanded ? kHandedThreads : kThreads;
  if constexpr (kHanded) {
    static const bool allowed = device::reserve_shared(kName, kKernel, kBytes);
    CHECK(allowed);
  }
  const CUtensorMap x_map =
      device::make_matrix_map(job.x, job.rows, job.depth, copied_rows(job.rows) / Shape::kMates,
                              kStageDepth, device::Swizzle::k128Bytes);
  device::launch_clusters(kName, *launch.queue, Shape::kBlocks,
                          dim3(static_cast<unsigned>(cluster_count<Shape>(job) * Shape::kBlocks)),
                          dim3(kCount), kBytes, kKernel, job, norm, x_map,
                          make_weight_map(job, Shape::kN, kStageDepth));
}

template <typename T, bool kHanded, typename... Shapes>
SplitRun find_best(const MatmulJob& job) {
  int64_t best = std::numeric_limits<int64_t>::max();
  SplitRun run;
  const auto offer = [&]<typename Shape>(Shape) {
    const int64_t time = time_of<T, Shape>(job);
    if (time >= best) return;
    best = time;
    run.run = run_shape<T, Shape, kHanded>;
    const int64_t tiles = ceil_div(job.weight_rows(), Shape::kN);
    run.parts = Shape::kHandsOn ? static_cast<int>(tiles) * Shape::kSplits : 0;
  };
  (offer(Shapes{}), ...);
  return run;
}

template <typename T, bool kHanded>
SplitRun best_run(const MatmulJob& job) {
  return find_best<T, kHanded, SplitShape<224, 4, 1, 6000, 810>, SplitShape<112, 6, 2, 5600, 370>,
                   SplitShape<144, 6, 4, 7000, 540>, SplitShape<208, 4, 4, 8000, 630>>(job);
}

}  // namespace

std::string matmul_split_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  const int64_t rows = launch.in[0].dim(0);
  if (rows <= kMinRows || rows > kTileRows)
    return str("needs ", kMinRows + 1, " to ", kTileRows, " rows");
  return mma_cuda_why_not(launch);
}

void matmul_split_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    best_run<T, false>(job).run(launch, job, {});
  });
}

void matmul_split_handed_cuda(const Launch& launch, const HandedNorm& norm) {
  const MatmulJob job = matmul_job(launch);
  best_run<__nv_bfloat16, true>(job).run(launch, job, norm);
}

int matmul_split_parts(const Launch& launch) {
  return best_run<__nv_bfloat16, true>(matmul_job(launch)).parts;
}

}  // namespace millrace::ops
