// Up to 32 rows on Hopper's tensor cores, at the speed of memory: the weight is streamed once, as
// the operand of wgmma that has 64 rows; rows of x ("tokens") are its columns, padded to 8, 16 or
// 32. In every block one thread keeps a ring of stages in shared memory full by TMA, and fills it
// with the weight before the kernel before has ended.
//
// A gated product's tile has 64 rows of the gate and 64 of up in groups of 8 that alternate: a warp
// has both sums of an output. The copy engine brings them so.
//
// A block takes a multiprocessor but for what the small kernels between products need: two blocks
// on one would have twice the time of the others. Blocks work on whole tiles where enough of them
// get equally many. Elsewhere they get equal shares of K's steps, and the last warp that is done
// with its piece of a strip of a tile adds the pieces up, in order. The cut, and with it the order
// of a sum, follows from N, K, the GPU, and the padded number of rows.
#include <algorithm>

#include "base/str.h"
#include "device/cuda/occupancy.h"
#include "ops/common/fast_silu_cuda.cuh"
#include "ops/common/hopper.cuh"
#include "ops/common/streamed_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_handed_norm_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"
#include "ops/matmul/matmul_swap_cuda.cuh"
#include "ops/matmul/matmul_weight_map_cuda.cuh"
#include "ops/matmul/matmul_wgmma_cuda.cuh"

namespace millrace::ops {
namespace {

using swap::kBoxDepth;
using swap::kStripRows;
using swap::kTileRows;
using swap::SwapCut;
using swap::SwapJoin;

constexpr const char* kName = "matmul_swap_cuda";
constexpr int kMaxSwapRows = 32;
constexpr int kRowBytes = hopper::kSwizzledRow;
constexpr int kGroupRows = 64;                      // of the weight, that a warpgroup multiplies
constexpr int kMultiplying = swap::kWarps * kWarp;  // threads
constexpr int kThreads = kMultiplying + kWarp;
constexpr int kHandedThreads = kThreads + kWarp;  // a warp finds the factors of a norm
constexpr int kBoxBytes = kTileRows * kRowBytes;  // of the weight
constexpr int kChunk = 16;                        // tokens that a warp stages before it writes
constexpr int kStagedStride = 20;                 // floats, against bank conflicts
constexpr int kStagedFloats = kChunk * kStagedStride;

/// Tiles of kTileRows weight rows and kTokens rows of x. A stage has kBoxes boxes of each operand
/// along K: memory gives more where 256 neighbouring bytes are asked for together. Rings are deep
/// so that they fill while the kernel before ends, but with all of their stages under way at once
/// its last blocks, and x, wait behind them: a layer of the 8B shape at 8 rows then takes 7 us
/// longer. So kInFlight stages of the weight are.
template <int kTokens_, int kStages_>
struct SwapShape {
  static constexpr int kTokens = kTokens_, kStages = kStages_;
  static constexpr int kBoxes = 2, kInFlight = 3;
  static constexpr int kSums = kTokens / 2;  // of a thread
  static constexpr int kDepth = kBoxes * kBoxDepth;
  static constexpr int kWeightBytes = kBoxes * kBoxBytes;
  static constexpr int kXBoxBytes = kTokens * kRowBytes;
  static constexpr int kXBytes = kBoxes * kXBoxBytes;
  static constexpr int kStageBytes = kWeightBytes + kXBytes;
  static constexpr int kStagedAt = kStages * kStageBytes;
  static constexpr int kBarriersAt = kStagedAt + swap::kWarps * kStagedFloats * 4;
  static constexpr int kSharedBytes = kBarriersAt + 3 * kStages * 8;
  static constexpr int kHandedBytes = kSharedBytes + 8 + kTokens * 4;
  static_assert(kInFlight <= kStages);
  static_assert(kSharedBytes > 114 * 1024, "two blocks must not fit");
  static_assert(kSharedBytes <= 208 * 1024, "small kernels need room");
};

/// The shared memory of a block: stages, staged outputs, and three barriers for each stage.
template <typename Shape>
struct SwapMemory {
  uint32_t base;

  __device__ uint32_t weight(int slot) const { return base + slot * Shape::kStageBytes; }
  __device__ uint32_t x(int slot) const { return weight(slot) + Shape::kWeightBytes; }
  /// An operand of a stage is there: one arrival, and its bytes.
  __device__ uint32_t full(int slot) const { return base + Shape::kBarriersAt + slot * 8; }
  __device__ uint32_t x_full(int slot) const { return full(Shape::kStages + slot); }
  /// The stage is used up: one arrival of every multiplying warp.
  __device__ uint32_t empty(int slot) const { return full(2 * Shape::kStages + slot); }
  /// Where norms are handed on: the factors behind it are there.
  __device__ uint32_t factors_there() const { return base + Shape::kSharedBytes; }
};

/// Copies the steps of this block's share, in order.
template <typename Shape>
class SwapCopies {
 public:
  __device__ SwapCopies(const SwapMemory<Shape>& memory, const SwapCut& cut,
                        const CUtensorMap& weight, const CUtensorMap& x, bool gated)
      : memory_(memory), steps_(cut.steps), weight_(weight), x_(x), gated_(gated) {
    const auto share = static_cast<int>(blockIdx.x);
    const int begin = cut.begin(share);
    count_ = cut.begin(share + 1) - begin;
    tile_ = begin / steps_;
    step_ = begin - tile_ * steps_;
  }

  /// Of one thread, before wait_for_predecessor().
  __device__ void fill_with_weight() {
    for (int i = 0; i < ahead(); ++i) {
      copy_weight(i);
      advance();
    }
  }

  /// x of every `stride`-th of these stages from `first` on, after it. Not of the thread that
  /// fills, which may not be through.
  __device__ void add_x(int first, int stride) const {
    for (int i = first; i < ahead(); i += stride)
      copy_x(i, (step_ + i) % steps_);
  }

  /// Of the thread that has filled the ring.
  __device__ void run() {
    RingPlace<Shape::kStages> place;
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
    ++tile_;
  }

  /// All stages before but kInFlight - 1 have come.
  __device__ void wait_for_earlier() {
    if (++copied_ <= Shape::kInFlight) return;
    hopper::wait_barrier(memory_.full(came_.slot), came_.phase);
    came_.advance();
  }

  __device__ void copy_weight(int slot) {
    wait_for_earlier();
    hopper::arrive_expecting(memory_.full(slot), Shape::kWeightBytes);
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
      const uint32_t to = memory_.weight(slot) + box * kBoxBytes;
      const int k = step_ * Shape::kDepth + box * kBoxDepth;
      if (gated_) {
        copy_streamed_box(to, weight_, memory_.full(slot), k, 0, 0,
                          tile_ * (kTileRows / kGatedPair));
      } else {
        copy_streamed_box(to, weight_, memory_.full(slot), k, tile_ * kTileRows);
      }
    }
  }

  __device__ void copy_x(int slot, int step) const {
    hopper::arrive_expecting(memory_.x_full(slot), Shape::kXBytes);
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
      hopper::copy_box(memory_.x(slot) + box * Shape::kXBoxBytes, x_, memory_.x_full(slot),
                       step * Shape::kDepth + box * kBoxDepth, 0);
    }
  }

  const SwapMemory<Shape>& memory_;
  int steps_;  // of a tile
  const CUtensorMap& weight_;
  const CUtensorMap& x_;
  bool gated_;
  int count_;                       // steps of the share
  int tile_, step_;                 // whose weight is copied next
  int copied_ = 0;                  // stages of the weight
  RingPlace<Shape::kStages> came_;  // the oldest stage that may be under way
};

/// sums = this warpgroup's 64 weight rows, over the next `steps` steps, times all tokens.
template <typename T, typename Shape>
__device__ void multiply_steps(const SwapMemory<Shape>& memory, int steps,
                               RingPlace<Shape::kStages>& place, float (&sums)[Shape::kSums]) {
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  hopper::pin(sums);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int slot = place.slot;
    hopper::wait_barrier(memory.full(slot), place.phase);
    hopper::wait_barrier(memory.x_full(slot), place.phase);
    hopper::start_products();
#pragma unroll
    for (int box = 0; box < Shape::kBoxes; ++box) {
      const uint64_t weight =
          hopper::k_major(memory.weight(slot) + box * kBoxBytes + group * kGroupRows * kRowBytes);
      const uint64_t x = hopper::k_major(memory.x(slot) + box * Shape::kXBoxBytes);
#pragma unroll
      for (int i = 0; i < kBoxDepth / 16; ++i) {
        constexpr int kNext = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
        stream::multiply_few<T, Shape::kTokens>(sums, weight + i * kNext, x + i * kNext,
                                                box > 0 || i > 0 || step > 0);
      }
    }
    hopper::commit_products();
    place.advance();
    // Products of few rows take much less time than memory does: a stage is better given back early
    // than multiplied without a pause.
    hopper::wait_products<0>();
    if (threadIdx.x % kWarp == 0) hopper::arrive(memory.empty(slot));
  }
  hopper::pin(sums);
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

template <int kTokens>
inline constexpr int kChunks = (kTokens + kChunk - 1) / kChunk;

/// What this lane adds to its outputs of a strip. Loaded before the pieces of a tile are added up,
/// so that it is there when they are.
template <typename T, int kTokens>
struct Residuals {
  Pack<T, 8> of_chunk[kChunks<kTokens>] = {};

  __device__ Residuals(const MatmulJob& job, int64_t first_row) {
    if (job.residual == nullptr || job.cols % 8 != 0) return;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int64_t n = first_row + lane % 2 * 8;
#pragma unroll
    for (int chunk = 0; chunk < kChunks<kTokens>; ++chunk) {
      const int64_t t = chunk * kChunk + lane / 2;
      if (t >= job.rows || n >= job.cols) continue;
      of_chunk[chunk] = *reinterpret_cast<const Pack<T, 8>*>(static_cast<const T*>(job.residual) +
                                                             t * job.cols + n);
    }
  }
};

/// The weights of a norm that is handed on, of this lane's eight columns; loaded like Residuals.
struct NormWeights {
  float of_column[8] = {};

  __device__ NormWeights(const HandedNorm& norm, const MatmulJob& job, int64_t first_row) {
    const int64_t n = first_row + threadIdx.x % 2 * 8;
    if (norm.scaled != nullptr && n < job.cols) load_floats<8>(norm.weight + n, of_column);
  }
};

/// values = outputs [t, n .. n + 7], which are written; rows of 8 m outputs, n a multiple of 8.
template <typename T>
__device__ void write_eight_with(const MatmulJob& job, int64_t t, int64_t n, const float* sums,
                                 const Pack<T, 8>& residual, float (&values)[8]) {
  load_floats<8>(sums, values);
  activate_eight(job, n, values);
#pragma unroll
  for (int i = 0; i < 8; ++i)
    values[i] += to_float(residual.at[i]);
  store_eight(job, t * job.cols + n, values);
}

/// Outputs [t, n .. n + 3] of a gated product; rows of 8 m outputs, n a multiple of 4.
template <typename T>
__device__ void write_four(const MatmulJob& job, int64_t t, int64_t n, const float* gate,
                           const float* up) {
  if (job.activation != ActivationKind::kSilu || job.bias != nullptr ||
      job.out_type != job.x_type) {
    write_gated_four(job, t, n, gate, up);
    return;
  }
  float values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    values[i] = fast_silu(gate[i]) * up[i];
  store_floats<4>(values, static_cast<T*>(job.out) + t * job.cols + n);
}

/// sums = the sums of these tokens times the factors of their rows of x.
template <int kCount>
__device__ void multiply_by_factors(float (&sums)[kCount], const float* factors) {
  const float* of_lane = factors + threadIdx.x % 4 * 2;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i] *= of_lane[i / 4 * 8 + i % 2];
}

/// Writes this warp's strip of a tile, from weight row first_row of all tiles on: a lane has eight
/// sums of a token. Of a gated product they are four of the gate and of up each.
template <typename T, int kTokens, bool kHanded>
__device__ void write_strip(const MatmulJob& job, const HandedNorm& norm,
                            const float (&sums)[kTokens / 2], int64_t first_row,
                            const Residuals<T, kTokens>& residuals, const NormWeights& weights,
                            float* staged) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t n = job.gated ? first_row / 2 + lane % 2 * 4 : first_row + lane % 2 * 8;
  const float* from = staged + lane / 2 * kStagedStride + lane % 2 * (job.gated ? 4 : 8);
  const bool whole = job.cols % 8 == 0;
#pragma unroll
  for (int chunk = 0; chunk < kChunks<kTokens>; ++chunk) {
    if (chunk * kChunk >= job.rows) break;
    stage_chunk(sums, chunk, staged);
    __syncwarp();
    const int64_t t = chunk * kChunk + lane / 2;
    float squares = 0;
    if (t < job.rows && n < job.cols) {
      if (job.gated) {
        write_four<T>(job, t, n, from, from + kGatedRows);
      } else if (whole) {
        float values[8];
        write_eight_with<T>(job, t, n, from, residuals.of_chunk[chunk], values);
        if (kHanded && norm.scaled != nullptr)
          squares = hand_on<T>(norm, t * job.cols + n, weights.of_column, values);
      } else {
#pragma unroll 1
        for (int j = 0; j < 8 && n + j < job.cols; ++j)
          write_out(job, t, n + j, from[j]);
      }
    }
    if (kHanded && norm.scaled != nullptr) {
      squares += __shfl_xor_sync(0xffffffffu, squares, 1);
      if (lane % 2 == 0 && t < kTokens && first_row < job.cols)
        norm.squares[first_row / kStripRows * kTokens + t] = squares;
    }
    __syncwarp();
  }
}

/// Of the multiplying warps: all of this block's share.
template <typename T, typename Shape, bool kHanded>
__device__ void multiply_share(const SwapMemory<Shape>& memory, const MatmulJob& job,
                               const HandedNorm& norm, const SwapCut& cut, const SwapJoin& join,
                               float* staged, const float* factors) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const auto share = static_cast<int>(blockIdx.x);
  const int end = cut.begin(share + 1);
  RingPlace<Shape::kStages> place;
  for (int at = cut.begin(share); at < end;) {
    const int tile = at / cut.steps;
    const int steps = min((tile + 1) * cut.steps, end) - at;
    at += steps;
    float sums[Shape::kSums];
    multiply_steps<T>(memory, steps, place, sums);
    const int64_t first_row = int64_t{tile} * kTileRows + warp * kStripRows;
    const Residuals<T, Shape::kTokens> residuals(job, first_row);
    const NormWeights weights(norm, job, kHanded ? first_row : job.cols);
    if (steps < cut.steps && !swap::join_pieces(cut, join, tile, sums)) continue;
    if (kHanded && norm.x_squares != nullptr) {
      hopper::wait_barrier(memory.factors_there(), 0);
      multiply_by_factors(sums, factors);
    }
    write_strip<T, Shape::kTokens, kHanded>(job, norm, sums, first_row, residuals, weights,
                                            staged + warp * kStagedFloats);
  }
}

/// Registers are for two blocks: what one leaves is for small kernels. kHanded: knows norms.
template <typename T, typename Shape, bool kHanded>
__global__ void __launch_bounds__(kHanded ? kHandedThreads : kThreads, 2)
    matmul_swap_kernel(const __grid_constant__ MatmulJob job,
                       const __grid_constant__ HandedNorm norm,
                       const __grid_constant__ CUtensorMap weight_map,
                       const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ SwapCut cut, const __grid_constant__ SwapJoin join) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const SwapMemory<Shape> memory{hopper::address_in_shared(bytes)};
  SwapCopies<Shape> copies(memory, cut, weight_map, x_map, job.gated);
  auto* const factors = reinterpret_cast<float*>(bytes + Shape::kSharedBytes + 8);
  const bool fills = threadIdx.x == kMultiplying;
  if (fills) {
    for (int i = 0; i < Shape::kStages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.x_full(i), 1);
      hopper::init_barrier(memory.empty(i), swap::kWarps);
    }
    if constexpr (kHanded) hopper::init_barrier(memory.factors_there(), 1);
    hopper::publish_barriers();
    hopper::order_before_async();
  }
  __syncthreads();
  if (fills) copies.fill_with_weight();
  device::wait_for_predecessor();
  if (threadIdx.x < kMultiplying) {
    // One thread would need half a microsecond for all stages.
    if (threadIdx.x % kWarp == 0) {
      copies.add_x(static_cast<int>(threadIdx.x) / kWarp, swap::kWarps);
    }
    __syncwarp();
    multiply_share<T, Shape, kHanded>(memory, job, norm, cut, join,
                                      reinterpret_cast<float*>(bytes + Shape::kStagedAt), factors);
  } else if (fills) {
    copies.run();
  } else if (kHanded && threadIdx.x >= kThreads && norm.x_squares != nullptr) {
    find_factors<Shape::kTokens, 16>(norm, job.depth, factors);
    __syncwarp();
    if (threadIdx.x == kThreads) hopper::arrive(memory.factors_there());
  }
}

/// The cuts of a product for as many blocks as there are multiprocessors.
template <typename Shape>
swap::SwapCuts cuts_for(const MatmulJob& job) {
  return swap::cut_product(job.weight_rows(), job.depth, Shape::kTokens, Shape::kDepth,
                           std::min(device::multiprocessors(), swap::kMaxBlocks));
}

template <typename T, typename Shape, bool kHanded>
void run_shape(const Launch& launch, const MatmulJob& job, const HandedNorm& norm, int place) {
  constexpr auto* kKernel = matmul_swap_kernel<T, Shape, kHanded>;
  constexpr int kBytes = kHanded ? Shape::kHandedBytes : Shape::kSharedBytes;
  constexpr int kCount = kHanded ? kHandedThreads : kThreads;
  static const bool allowed = device::reserve_shared(kName, kKernel, kBytes);
  CHECK(allowed);
  const CUtensorMap x_map = device::make_matrix_map(job.x, job.rows, job.depth, Shape::kTokens,
                                                    kBoxDepth, device::Swizzle::k128Bytes);
  const SwapCut cut = cuts_for<Shape>(job).at(place);
  const SwapJoin join = {static_cast<float4*>(launch.workspace), queue_number(*launch.queue)};
  device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(cut.shares)), dim3(kCount),
                        kBytes, kKernel, job, norm, make_weight_map(job, kTileRows, kBoxDepth),
                        x_map, cut, join);
}

/// Calls `function(SwapShape<...>{})` with the shape for this number of rows.
template <typename F>
auto with_shape(int64_t rows, const F& function) {
  if (rows <= 8) return function(SwapShape<8, 5>{});
  if (rows <= 16) return function(SwapShape<16, 5>{});
  return function(SwapShape<32, 4>{});
}

}  // namespace

std::string matmul_swap_cuda_why_not(const Launch& launch, const device::Properties& properties,
                                     int place) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  if (launch.in[0].dim(0) > kMaxSwapRows) return str("more than ", kMaxSwapRows, " rows");
  if (std::string reason = mma_cuda_why_not(launch); !reason.empty() || place == 0) return reason;
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return "there is nothing to cut";
  return with_shape(job.rows, [&]<typename Shape>(Shape) -> std::string {
    if (cuts_for<Shape>(job).count > place) return "";
    return "there is no other cut";
  });
}

int64_t matmul_swap_cuda_workspace(const Launch& launch, const device::Properties&) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return 0;
  int64_t floats = 0;
  // Fewer rows are cut in another way.
  for (int64_t rows = 1; rows < 2 * job.rows; rows *= 2) {
    with_shape(rows, [&]<typename Shape>(Shape) {
      const swap::SwapCuts cuts = cuts_for<Shape>(job);
      for (int place = 0; place < cuts.count; ++place)
        floats = std::max(floats, swap::partial_floats(cuts.at(place), Shape::kTokens));
    });
  }
  return floats * static_cast<int64_t>(sizeof(float));
}

bool matmul_swap_cuda_gates(const Launch& launch) {
  return launch.out[0].dim(1) % kGatedRows == 0;
}

void matmul_swap_cuda(const Launch& launch, int place) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    with_shape(job.rows,
               [&]<typename Shape>(Shape) { run_shape<T, Shape, false>(launch, job, {}, place); });
  });
}

void matmul_swap_handed_cuda(const Launch& launch, int place, const HandedNorm& norm) {
  const MatmulJob job = matmul_job(launch);
  with_shape(job.rows, [&]<typename Shape>(Shape) {
    run_shape<__nv_bfloat16, Shape, true>(launch, job, norm, place);
  });
}

int matmul_swap_parts(const Launch& launch) {
  return static_cast<int>((launch.out[0].dim(1) + kStripRows - 1) / kStripRows);
}

}  // namespace millrace::ops
