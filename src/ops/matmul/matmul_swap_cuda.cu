// Up to 128 rows on Hopper's tensor cores, at the speed of memory: the weight is streamed once, as
// the operand of wgmma that has 64 rows; rows of x ("tokens") are its columns, padded to 8, 16, 32,
// 64 or 128. In every block one thread keeps a ring of stages in shared memory full by TMA, and
// fills it with the weight before the kernel before has ended.
//
// A block takes a multiprocessor but for what the small kernels between products need: two blocks
// on one would have twice the time of the others. Blocks work on whole tiles where enough of them
// get equally many. Elsewhere they get equal shares of K's steps, and the last warp that is done
// with its piece of a strip of a tile adds the pieces up, in order. The cut, and with it the order
// of a sum, follows from N, K and the number of multiprocessors, not from the number of rows.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "device/cuda/tensor_map.h"
#include "ops/common/hopper.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"
#include "ops/matmul/matmul_swap_cuda.cuh"

namespace millrace::ops {
namespace {

using swap::kPair;
using swap::kStepDepth;
using swap::kStripRows;
using swap::kTileRows;
using swap::SwapCut;
using swap::SwapJoin;

constexpr const char* kName = "matmul_swap_cuda";
constexpr int kMaxSwapRows = 128;
constexpr int kRowBytes = hopper::kSwizzledRow;
constexpr int kGroupRows = 64;                      // of the weight, that a warpgroup multiplies
constexpr int kMultiplying = swap::kWarps * kWarp;  // threads
constexpr int kThreads = kMultiplying + kWarp;
constexpr int kWeightBytes = kTileRows * kRowBytes;  // of a stage
constexpr int kChunk = 16;                           // tokens that a warp stages before it writes
constexpr int kStagedStride = 20;                    // floats, against bank conflicts
constexpr int kStagedFloats = kChunk * kStagedStride;

/// Tiles of kTileRows weight rows and kTokens rows of x. Where x is wide, the two blocks of a pair
/// are a cluster, and each copies one half of it to both.
template <int kTokens_, int kStages_, bool kSharesX_>
struct SwapShape {
  static constexpr int kTokens = kTokens_, kStages = kStages_;
  static constexpr bool kSharesX = kSharesX_;
  static constexpr int kSums = kTokens / 2;  // of a thread
  /// Blocks that a multiprocessor has registers for: what one leaves is for small kernels.
  static constexpr int kLeastFit = 2;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kStagedAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kStagedAt + swap::kWarps * kStagedFloats * 4;
  static constexpr int kSharedBytes = kBarriersAt + 2 * kStages * 8;
  static_assert(kSharedBytes > 114 * 1024, "two blocks must not fit");
  static_assert(kSharedBytes <= 208 * 1024, "small kernels need room");
};

/// The shared memory of a block: stages, staged outputs, and two barriers for each stage.
template <typename Shape>
struct SwapMemory {
  uint32_t base;

  __device__ uint32_t weight(int slot) const { return base + slot * Shape::kStageBytes; }
  __device__ uint32_t x(int slot) const { return weight(slot) + kWeightBytes; }
  /// The stage is there: one arrival, and the bytes of both operands.
  __device__ uint32_t full(int slot) const { return base + Shape::kBarriersAt + slot * 8; }
  /// The stage is used up, in both blocks where they share x: one arrival of every multiplying
  /// warp.
  __device__ uint32_t empty(int slot) const { return full(slot) + Shape::kStages * 8; }
};

__device__ int pair_rank() {
  return static_cast<int>(blockIdx.x) % kPair;
}
__device__ int share_index() {
  return static_cast<int>(blockIdx.x) / kPair;
}

/// A slot of the ring, and the parity of the phase that its barriers are in.
template <int kStages>
struct SwapPlace {
  int slot = 0, phase = 0;

  __device__ void advance() {
    if (++slot < kStages) return;
    slot = 0;
    phase ^= 1;
  }
};

/// Of one thread: copies the steps of this block's share, in order.
template <typename Shape>
class SwapCopies {
 public:
  __device__ SwapCopies(const SwapMemory<Shape>& memory, const SwapCut& cut,
                        const CUtensorMap& weight, const CUtensorMap& x)
      : memory_(memory), steps_(cut.steps), weight_(weight), x_(x) {
    const int begin = cut.begin(share_index());
    count_ = cut.begin(share_index() + 1) - begin;
    pair_ = begin / steps_;
    step_ = begin - pair_ * steps_;
    first_step_ = step_;
  }

  /// Before wait_for_predecessor().
  __device__ void fill_with_weight() {
    for (int i = 0; i < ahead(); ++i) {
      copy_weight(i);
      advance();
    }
  }

  /// After it, and when the other block's barriers are there.
  __device__ void run() {
    int step = first_step_;
    for (int i = 0; i < ahead(); ++i) {
      copy_x(i, step);
      if (++step == steps_) step = 0;
    }
    SwapPlace<Shape::kStages> place;
    for (int i = Shape::kStages; i < count_; ++i) {
      hopper::wait_barrier(memory_.empty(place.slot), place.phase);
      copy_weight(place.slot);
      copy_x(place.slot, step_);
      advance();
      place.advance();
    }
  }

 private:
  __device__ int ahead() const { return min(count_, Shape::kStages); }

  __device__ void advance() {
    if (++step_ < steps_) return;
    step_ = 0;
    ++pair_;
  }

  __device__ void copy_weight(int slot) const {
    hopper::arrive_expecting(memory_.full(slot), Shape::kStageBytes);
    stream::copy_streamed_box(memory_.weight(slot), weight_, memory_.full(slot), step_ * kStepDepth,
                              (pair_ * kPair + pair_rank()) * kTileRows);
  }

  __device__ void copy_x(int slot, int step) const {
    if constexpr (Shape::kSharesX) {
      constexpr uint32_t kBoth = 0b11;
      const int first = pair_rank() * (Shape::kTokens / kPair);
      stream::copy_box_to_blocks(memory_.x(slot) + first * kRowBytes, x_, memory_.full(slot),
                                 step * kStepDepth, first, kBoth);
    } else {
      hopper::copy_box(memory_.x(slot), x_, memory_.full(slot), step * kStepDepth, 0);
    }
  }

  const SwapMemory<Shape>& memory_;
  int steps_;  // of a tile
  const CUtensorMap& weight_;
  const CUtensorMap& x_;
  int count_;        // steps of the share
  int pair_, step_;  // whose weight is copied next
  int first_step_;   // of the share, in its tile
};

template <typename T, int kN>
__device__ void multiply_tokens(float (&sums)[kN / 2], uint64_t weight, uint64_t x, bool add) {
  if constexpr (kN <= 32) {
    stream::multiply_few<T, kN>(sums, weight, x, add);
  } else {
    hopper::multiply<T, kN, false>(sums, weight, x, add);
  }
}

/// This warp is done with a stage.
template <typename Shape>
__device__ void release(const SwapMemory<Shape>& memory, int slot) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if constexpr (Shape::kSharesX) {
    if (lane < kPair) stream::give_back(memory.empty(slot), lane);
  } else {
    if (lane == 0) hopper::arrive(memory.empty(slot));
  }
}

/// sums = this warpgroup's 64 weight rows, over the next `steps` steps, times all tokens.
template <typename T, typename Shape>
__device__ void multiply_steps(const SwapMemory<Shape>& memory, int steps,
                               SwapPlace<Shape::kStages>& place, float (&sums)[Shape::kSums]) {
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  int last_slot = 0;
  hopper::pin(sums);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    hopper::wait_barrier(memory.full(place.slot), place.phase);
    const uint64_t weight =
        hopper::k_major(memory.weight(place.slot) + group * kGroupRows * kRowBytes);
    const uint64_t x = hopper::k_major(memory.x(place.slot));
    hopper::start_products();
#pragma unroll
    for (int i = 0; i < kStepDepth / 16; ++i) {
      constexpr int kNext = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
      multiply_tokens<T, Shape::kTokens>(sums, weight + i * kNext, x + i * kNext,
                                         i > 0 || step > 0);
    }
    hopper::commit_products();
    hopper::wait_products<1>();  // the stage before is no longer read
    if (step > 0) release(memory, last_slot);
    last_slot = place.slot;
    place.advance();
  }
  hopper::wait_products<0>();
  hopper::pin(sums);
  release(memory, last_slot);
}

/// Sums of tokens [16 chunk, + 16) to shared memory: [token][weight row].
template <int kCount>
__device__ void stage_chunk(const float (&sums)[kCount], int chunk, float* staged) {
  constexpr int kEights = kChunk / 8;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float* to = staged + lane % 4 * 2 * kStagedStride + lane / 4;
#pragma unroll
  for (int i = 0; i < kCount / 4; ++i) {  // registers have no run-time index
    if (i / kEights != chunk) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      to[(i % kEights * 8 + j % 2) * kStagedStride + j / 2 * 8] = sums[4 * i + j];
  }
}

/// Writes this warp's strip of a tile, weight rows [first_n, + 16): a lane has eight of a token.
template <int kCount>
__device__ void write_strip(const MatmulJob& job, const float (&sums)[kCount], int64_t first_n,
                            float* staged) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t n = first_n + lane % 2 * 8;
  const float* from = staged + lane / 2 * kStagedStride + lane % 2 * 8;
  const bool whole = job.cols % 8 == 0;
#pragma unroll 1
  for (int chunk = 0; chunk * kChunk < job.rows; ++chunk) {
    stage_chunk(sums, chunk, staged);
    __syncwarp();
    const int64_t t = chunk * kChunk + lane / 2;
    if (t < job.rows && n < job.cols) {
      if (whole) {
        write_eight(job, t, n, from);
      } else {
#pragma unroll 1
        for (int j = 0; j < 8 && n + j < job.cols; ++j)
          write_out(job, t, n + j, from[j]);
      }
    }
    __syncwarp();
  }
}

/// Of the multiplying warps: all of this block's share.
template <typename T, typename Shape>
__device__ void multiply_share(const SwapMemory<Shape>& memory, const MatmulJob& job,
                               const SwapCut& cut, const SwapJoin& join, float* staged) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int end = cut.begin(share_index() + 1);
  SwapPlace<Shape::kStages> place;
  for (int at = cut.begin(share_index()); at < end;) {
    const int pair = at / cut.steps;
    const int steps = min((pair + 1) * cut.steps, end) - at;
    at += steps;
    float sums[Shape::kSums];
    multiply_steps<T>(memory, steps, place, sums);
    if (steps < cut.steps && !swap::join_pieces(cut, join, share_index(), pair, sums)) continue;
    const int64_t first_n = int64_t{pair * kPair + pair_rank()} * kTileRows + warp * kStripRows;
    write_strip(job, sums, first_n, staged + warp * kStagedFloats);
  }
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(kThreads, Shape::kLeastFit)
    matmul_swap_kernel(const __grid_constant__ MatmulJob job,
                       const __grid_constant__ CUtensorMap weight_map,
                       const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ SwapCut cut, const __grid_constant__ SwapJoin join) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const SwapMemory<Shape> memory{hopper::address_in_shared(bytes)};
  SwapCopies<Shape> copies(memory, cut, weight_map, x_map);
  const bool copies_boxes = threadIdx.x == kMultiplying;
  if (copies_boxes) {
    for (int i = 0; i < Shape::kStages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.empty(i), (Shape::kSharesX ? kPair : 1) * swap::kWarps);
    }
    hopper::publish_barriers();
    hopper::order_before_async();
    copies.fill_with_weight();
  }
  __syncwarp();
  if constexpr (Shape::kSharesX) {
    stream::meet_cluster();
  } else {
    __syncthreads();
  }
  device::wait_for_predecessor();
  if (threadIdx.x < kMultiplying) {
    multiply_share<T>(memory, job, cut, join, reinterpret_cast<float*>(bytes + Shape::kStagedAt));
  } else if (copies_boxes) {
    copies.run();
  }
  if constexpr (Shape::kSharesX) {
    __syncwarp();
    stream::meet_cluster();  // the other block may still copy to this one's memory
  }
}

int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// An estimate of a cut's time, in those that a multiprocessor alone needs for a step: memory is
/// busy when kEnough of them stream. Adding up pieces takes some time at the end.
double time_of(const SwapCut& cut, int pieces) {
  constexpr double kEnough = 90, kJoin = 6, kPiece = 1;
  const double bound = static_cast<double>(cut.units()) * cut.unit * kPair / kEnough;
  const double longest = static_cast<double>(ceil_div(cut.units(), cut.shares)) * cut.unit;
  return std::max(bound, longest) + (pieces > 1 ? kJoin + kPiece * pieces : 0);
}

/// Whole tiles, tiles in equal pieces, or equal shares that begin anywhere: the best of these.
SwapCut cut_product(int64_t cols, int64_t depth) {
  const int most = std::clamp(device::multiprocessors() / kPair, 1, swap::kMaxShares);
  SwapCut best;
  double best_time = std::numeric_limits<double>::infinity();
  const auto offer = [&](const SwapCut& cut, int pieces) {
    const double time = time_of(cut, pieces);
    if (time >= best_time) return;
    best_time = time;
    best = cut;
  };
  const int pairs = ceil_div(cols, swap::kPairRows);
  const int steps = ceil_div(depth, kStepDepth);
  offer({pairs, steps, ceil_div(pairs, ceil_div(pairs, most)), steps}, 1);
  for (int pieces = 2; pieces * pairs <= most && pieces <= steps; ++pieces)
    offer({pairs, steps, pieces * pairs, 1}, pieces);
  if (most <= int64_t{pairs} * steps)
    offer({pairs, steps, most, 1}, std::min(steps, ceil_div(most, pairs) + 1));
  return best;
}

/// Rows of x, padded.
int padded(int64_t rows) {
  int tokens = 8;
  while (tokens < rows)
    tokens *= 2;
  return tokens;
}

template <typename T, typename Shape>
void run_shape(const Launch& launch, const MatmulJob& job) {
  constexpr auto* kKernel = matmul_swap_kernel<T, Shape>;
  static const bool allowed = [] {
    // All of the cache as shared memory: else small kernels would not find any.
    device::check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       kName, "shared memory");
    return device::allow_shared(kName, kKernel, Shape::kSharedBytes);
  }();
  CHECK(allowed);
  const auto map = [&](const void* data, int64_t rows, int box_rows) {
    return device::make_matrix_map(data, rows, job.depth, box_rows, kStepDepth,
                                   device::Swizzle::k128Bytes);
  };
  const SwapCut cut = cut_product(job.cols, job.depth);
  const SwapJoin join = {static_cast<float4*>(launch.workspace), queue_number(*launch.queue)};
  device::launch_clusters(kName, *launch.queue, Shape::kSharesX ? kPair : 1,
                          dim3(static_cast<unsigned>(cut.shares * kPair)), dim3(kThreads),
                          Shape::kSharedBytes, kKernel, job, map(job.weight, job.cols, kTileRows),
                          map(job.x, job.rows, Shape::kTokens / (Shape::kSharesX ? kPair : 1)), cut,
                          join);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  switch (padded(job.rows)) {
    case 8:
      return run_shape<T, SwapShape<8, 11, false>>(launch, job);
    case 16:
      return run_shape<T, SwapShape<16, 10, false>>(launch, job);
    case 32:
      return run_shape<T, SwapShape<32, 9, true>>(launch, job);
    case 64:
      return run_shape<T, SwapShape<64, 8, true>>(launch, job);
    default:
      return run_shape<T, SwapShape<128, 6, true>>(launch, job);
  }
}

}  // namespace

std::string matmul_swap_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  if (launch.in[0].dim(0) > kMaxSwapRows) return str("more than ", kMaxSwapRows, " rows");
  return mma_cuda_why_not(launch);
}

int64_t matmul_swap_cuda_workspace(const Launch& launch, const device::Properties&) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return 0;
  const SwapCut cut = cut_product(job.cols, job.depth);
  return cut.unit == cut.steps ? 0 : swap::partial_floats(cut, padded(job.rows)) * 4;
}

void matmul_swap_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) { run_typed<T>(launch, job); });
}

}  // namespace millrace::ops
