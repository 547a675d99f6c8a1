// Up to 64 rows on Hopper's tensor cores, at the speed of memory: the weight is streamed once, as
// the operand of wgmma that has 64 rows; rows of x ("tokens") are its columns, padded to 8, 16, 32
// or 64. Two threads of a block keep two rings in shared memory full by TMA, one of the weight and
// one of x. The first one begins before the kernel before has ended.
//
// A strip of 16 weight rows is what a warp has of a product. Tiles are any number of strips, so
// that all multiprocessors get equally many. Where there are too few rows for that, tiles are in
// pieces along K, and the last warp that is done with its piece of a strip adds the pieces up, in
// order. The cut, and with it the order of a sum, follows from N, K, the GPU, and the padded number
// of rows.
//
// Memory is fastest where neighbouring bytes are asked for together: the copy engine sees the
// weight as {64, 8, K / 64, N / 8}, and brings 512 bytes of each of 8 rows before it goes
// on. That is an order in which wgmma can have its operand in shared memory. Strips of a gated
// product have 8 rows of the gate and 8 of up, so that a thread has both sums of an output.
//
// A block takes a multiprocessor but for what the small kernels between products need: two blocks
// on one would have twice the time of the others.
#include <algorithm>

#include "base/str.h"
#include "device/cuda/tensor_map.h"
#include "ops/common/hopper.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"
#include "ops/matmul/matmul_swap_cuda.cuh"

namespace millrace::ops {
namespace {

using swap::kGroupStrips;
using swap::kStripRows;
using swap::SwapCut;
using swap::SwapJoin;

constexpr const char* kName = "matmul_swap_cuda";
constexpr int kMaxSwapRows = 64;
constexpr int kBoxDepth = hopper::kSwizzledRow / 2;  // elements of K
constexpr int kBoxRows = 8;                          // of the weight
constexpr int kBoxBytes = kBoxRows * hopper::kSwizzledRow;
constexpr int kGroupWarps = hopper::kWarpgroup / kWarp;
constexpr int kMultiplyingWarps = 2 * kGroupWarps;
constexpr int kWeightThread = kMultiplyingWarps * kWarp;
constexpr int kXThread = kWeightThread + kWarp;
constexpr int kThreads = kXThread + kWarp;
constexpr int kChunk = 16;         // tokens that a warp stages before it writes
constexpr int kStagedStride = 20;  // floats, against bank conflicts
constexpr int kStagedFloats = kChunk * kStagedStride;
constexpr int kStagedBytes = kMultiplyingWarps * kStagedFloats * 4;
constexpr int kMostSharedBytes = 208 * 1024;   // small kernels need room
constexpr int kLeastSharedBytes = 116 * 1024;  // two blocks must not fit

/// kTokens rows of x, and how many steps along K of them are under way.
template <int kTokens_, int kXStages_>
struct SwapShape {
  static constexpr int kTokens = kTokens_, kXStages = kXStages_;
  static constexpr int kBoxes = 4;  // of 64 elements, in a step
  static constexpr int kDepth = kBoxes * kBoxDepth;
  static constexpr int kGroupBytes = kBoxes * kBoxBytes;  // of 8 weight rows
  static constexpr int kStripBytes = kStripRows / kBoxRows * kGroupBytes;
  static constexpr int kXBoxBytes = kTokens * hopper::kSwizzledRow;
  static constexpr int kXBytes = kBoxes * kXBoxBytes;  // of a stage
};

/// The ring of the weight: a stage holds the strips of a group, for a step. An even number of
/// stages: each one is of the same warpgroup for ever.
struct SwapRing {
  int stages = 0, stage_bytes = 0;
};

/// The shared memory of a block: stages of the weight, of x, staged outputs, and two barriers for
/// each stage.
template <typename Shape>
struct SwapMemory {
  uint32_t base;
  SwapRing ring;

  __host__ __device__ uint32_t weight(int slot) const { return base + slot * ring.stage_bytes; }
  __host__ __device__ uint32_t x(int slot) const {
    return weight(ring.stages) + slot * Shape::kXBytes;
  }
  __host__ __device__ uint32_t staged() const { return x(Shape::kXStages); }
  /// The stage is there: one arrival, and its bytes.
  __host__ __device__ uint32_t weight_full(int slot) const {
    return staged() + kStagedBytes + slot * 8;
  }
  __host__ __device__ uint32_t x_full(int slot) const {
    return weight_full(2 * ring.stages + slot);
  }
  /// The stage is used up: one arrival of every warp that multiplies it.
  __device__ uint32_t weight_empty(int slot) const { return weight_full(ring.stages + slot); }
  __device__ uint32_t x_empty(int slot) const { return x_full(Shape::kXStages + slot); }
  /// Products read 64 rows of the last stage, even if it has fewer.
  int bytes() const {
    const uint32_t read = weight(ring.stages - 1) + kGroupStrips * Shape::kStripBytes;
    return static_cast<int>(std::max(read, x_full(2 * Shape::kXStages)) - base);
  }

  __device__ void init_barriers() const {
    for (int i = 0; i < ring.stages; ++i) {
      hopper::init_barrier(weight_full(i), 1);
      hopper::init_barrier(weight_empty(i), kGroupWarps);
    }
    for (int i = 0; i < Shape::kXStages; ++i) {
      hopper::init_barrier(x_full(i), 1);
      hopper::init_barrier(x_empty(i), kMultiplyingWarps);
    }
    hopper::publish_barriers();
    hopper::order_before_async();
  }
};

/// A slot of a ring, and the parity of the phase that its barriers are in.
struct SwapPlace {
  int slot = 0, phase = 0;

  __device__ void advance(int by, int stages) {
    slot += by;
    if (slot < stages) return;
    slot -= stages;
    phase ^= 1;
  }
};

/// How the copy engine finds the operands. Where K is no multiple of 64, or rows are no multiple of
/// 8, the maps are those of plain matrices, and boxes come one by one.
struct SwapMaps {
  CUtensorMap weight, x;
  bool is_dense;
};

/// Starts to copy a strip of a tile, for a step.
template <typename Shape>
__device__ void copy_strip(const MatmulJob& job, const SwapMaps& maps, uint32_t to,
                           uint32_t barrier, int strip, int step) {
  if (maps.is_dense) {
    const int box = step * Shape::kBoxes;
    if (job.gated) {
      stream::copy_streamed_box(to, maps.weight, barrier, 0, 0, box, 0, strip);
    } else {
      stream::copy_streamed_box(to, maps.weight, barrier, 0, 0, box, strip * 2);
    }
    return;
  }
  for (int half = 0; half < 2; ++half) {
    const int row = job.gated ? strip * kBoxRows + half * static_cast<int>(job.cols)
                              : strip * kStripRows + half * kBoxRows;
    for (int box = 0; box < Shape::kBoxes; ++box) {
      stream::copy_streamed_box(to + half * Shape::kGroupBytes + box * kBoxBytes, maps.weight,
                                barrier, step * Shape::kDepth + box * kBoxDepth, row);
    }
  }
}

/// Of one thread: copies the weight of this block's steps. Weights are constant: it waits for no
/// other kernel.
template <typename Shape>
__device__ void copy_weight(const SwapMemory<Shape>& memory, const MatmulJob& job,
                            const SwapMaps& maps, const SwapCut& cut) {
  SwapPlace place{0, 1};
  const int end = cut.begin(static_cast<int>(blockIdx.x) + 1);
  for (int at = cut.begin(static_cast<int>(blockIdx.x)); at < end; ++at) {
    const int tile = at / cut.steps;
    const int step = at - tile * cut.steps;
    for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
      const int first = cut.group_begin(warpgroup);
      const int strips = cut.group_begin(warpgroup + 1) - first;
      const uint32_t full = memory.weight_full(place.slot);
      hopper::wait_barrier(memory.weight_empty(place.slot), place.phase);
      hopper::arrive_expecting(full, strips * Shape::kStripBytes);
      for (int i = 0; i < strips; ++i) {
        copy_strip<Shape>(job, maps, memory.weight(place.slot) + i * Shape::kStripBytes, full,
                          tile * cut.strips + first + i, step);
      }
      place.advance(1, memory.ring.stages);
    }
  }
}

/// Of one thread: copies x, all tokens of a step at a time. After wait_for_predecessor().
template <typename Shape>
__device__ void copy_x(const SwapMemory<Shape>& memory, const SwapMaps& maps, const SwapCut& cut) {
  SwapPlace place{0, 1};
  const int end = cut.begin(static_cast<int>(blockIdx.x) + 1);
  for (int at = cut.begin(static_cast<int>(blockIdx.x)); at < end; ++at) {
    const uint32_t to = memory.x(place.slot), full = memory.x_full(place.slot);
    const int box = at % cut.steps * Shape::kBoxes;
    hopper::wait_barrier(memory.x_empty(place.slot), place.phase);
    hopper::arrive_expecting(full, Shape::kXBytes);
    if (maps.is_dense) {
      hopper::copy_box(to, maps.x, full, 0, 0, box);
    } else {
      for (int i = 0; i < Shape::kBoxes; ++i)
        hopper::copy_box(to + i * Shape::kXBoxBytes, maps.x, full, (box + i) * kBoxDepth, 0);
    }
    place.advance(1, Shape::kXStages);
  }
}

template <typename T, int kN>
__device__ void multiply_tokens(float (&sums)[kN / 2], uint64_t weight, uint64_t x, bool add) {
  if constexpr (kN <= 32) {
    stream::multiply_few<T, kN>(sums, weight, x, add);
  } else {
    hopper::multiply<T, kN, false>(sums, weight, x, add);
  }
}

/// This warp is done with a stage.
__device__ inline void release(uint32_t empty) {
  if (threadIdx.x % kWarp == 0) hopper::arrive(empty);
}

/// sums (+)= 64 weight rows of a stage times all tokens, over a step.
template <typename T, typename Shape>
__device__ void multiply_stage(uint32_t weight, uint32_t x, float (&sums)[Shape::kTokens / 2],
                               bool add) {
  hopper::start_products();
#pragma unroll
  for (int box = 0; box < Shape::kBoxes; ++box) {
    const uint64_t a = hopper::matrix_descriptor(weight + box * kBoxBytes, 16, Shape::kGroupBytes);
    const uint64_t b = hopper::k_major(x + box * Shape::kXBoxBytes);
#pragma unroll
    for (int i = 0; i < kBoxDepth / 16; ++i) {
      constexpr int kNext = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
      multiply_tokens<T, Shape::kTokens>(sums, a + i * kNext, b + i * kNext,
                                         add || box > 0 || i > 0);
    }
  }
  hopper::commit_products();
  hopper::wait_products<0>();
  hopper::pin(sums);
}

/// Where a warpgroup is in both rings.
struct SwapPlaces {
  SwapPlace weight, x;
};

/// sums = this warpgroup's strips of a tile, over the next `steps` steps, times all tokens.
template <typename T, typename Shape>
__device__ void multiply_steps(const SwapMemory<Shape>& memory, int steps, SwapPlaces& place,
                               float (&sums)[Shape::kTokens / 2]) {
  hopper::pin(sums);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    hopper::wait_barrier(memory.x_full(place.x.slot), place.x.phase);
    hopper::wait_barrier(memory.weight_full(place.weight.slot), place.weight.phase);
    multiply_stage<T, Shape>(memory.weight(place.weight.slot), memory.x(place.x.slot), sums,
                             step > 0);
    release(memory.weight_empty(place.weight.slot));
    release(memory.x_empty(place.x.slot));
    place.weight.advance(2, memory.ring.stages);
    place.x.advance(1, Shape::kXStages);
  }
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

/// Writes this warp's strip of a tile, from weight row first_row of all tiles on: a lane has eight
/// sums of a token. Of a gated product they are four of the gate and of up each.
template <int kCount>
__device__ void write_strip(const MatmulJob& job, const float (&sums)[kCount], int64_t first_row,
                            float* staged) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t n = job.gated ? first_row / 2 + lane % 2 * 4 : first_row + lane % 2 * 8;
  const float* from = staged + lane / 2 * kStagedStride + lane % 2 * (job.gated ? 4 : 8);
  const bool whole = job.cols % 8 == 0;
#pragma unroll 1
  for (int chunk = 0; chunk * kChunk < job.rows; ++chunk) {
    stage_chunk(sums, chunk, staged);
    __syncwarp();
    const int64_t t = chunk * kChunk + lane / 2;
    if (t < job.rows && n < job.cols) {
      if (job.gated) {
        write_gated_four(job, t, n, from, from + kBoxRows);
      } else if (whole) {
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

/// Of the multiplying warps: all tiles of this block, or its piece of one.
template <typename T, typename Shape>
__device__ void multiply_tiles(const SwapMemory<Shape>& memory, const MatmulJob& job,
                               const SwapCut& cut, const SwapJoin& join, float* staged) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warpgroup = warp / kGroupWarps;
  const int end = cut.begin(static_cast<int>(blockIdx.x) + 1);
  SwapPlaces place;
  place.weight.slot = warpgroup;
  for (int at = cut.begin(static_cast<int>(blockIdx.x)); at < end;) {
    const int tile = at / cut.steps;
    const int steps = min((tile + 1) * cut.steps, end) - at;
    at += steps;
    float sums[Shape::kTokens / 2];
    multiply_steps<T>(memory, steps, place, sums);
    const int strip = cut.group_begin(warpgroup) + warp % kGroupWarps;
    if (strip >= cut.group_begin(warpgroup + 1)) continue;
    if (cut.pieces > 1 && !swap::join_pieces(cut, join, tile, strip, sums)) continue;
    write_strip(job, sums, (int64_t{tile} * cut.strips + strip) * kStripRows,
                staged + warp * kStagedFloats);
  }
}

/// Registers are for two blocks: what one leaves is for small kernels.
template <typename T, typename Shape>
__global__ void __launch_bounds__(kThreads, 2)
    matmul_swap_kernel(const __grid_constant__ MatmulJob job, const __grid_constant__ SwapMaps maps,
                       const __grid_constant__ SwapRing ring, const __grid_constant__ SwapCut cut,
                       const __grid_constant__ SwapJoin join) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const SwapMemory<Shape> memory{hopper::address_in_shared(bytes), ring};
  if (threadIdx.x == kWeightThread) memory.init_barriers();
  __syncthreads();
  if (threadIdx.x == kWeightThread) {
    copy_weight(memory, job, maps, cut);
  } else if (threadIdx.x == kXThread) {
    device::wait_for_predecessor();
    copy_x(memory, maps, cut);
  } else if (threadIdx.x < kWeightThread) {
    device::wait_for_predecessor();
    multiply_tiles<T>(memory, job, cut, join,
                      reinterpret_cast<float*>(bytes + (memory.staged() - memory.base)));
  }
}

/// Makes the kernel ready for launches.
template <typename T, typename Shape>
void prepare() {
  static const bool is_ready = [] {
    constexpr auto* kKernel = matmul_swap_kernel<T, Shape>;
    // All of the cache as shared memory: else small kernels would not find any.
    device::check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       kName, "shared memory");
    return device::allow_shared(kName, kKernel, kMostSharedBytes);
  }();
  CHECK(is_ready);
}

template <typename Shape>
SwapCut cut_for(const MatmulJob& job) {
  return swap::cut_product(job.weight_rows(), job.depth, {Shape::kTokens, Shape::kDepth},
                           device::multiprocessors());
}

/// As many stages as there is room for.
template <typename Shape>
SwapRing ring_for(const SwapCut& cut) {
  constexpr int kMostBarrierBytes = 1024;
  constexpr int kRoom =
      kMostSharedBytes - Shape::kXStages * Shape::kXBytes - kStagedBytes - kMostBarrierBytes;
  const int stage_bytes = cut.most_group_strips() * Shape::kStripBytes;
  static_assert(2 * kGroupStrips * Shape::kStripBytes <= kRoom);
  return {kRoom / stage_bytes / 2 * 2, stage_bytes};
}

/// Of a gated product (F a multiple of 8) the weight has the dimensions {64, 8, K / 64, 2, F / 8}.
template <typename Shape>
SwapMaps maps_for(const MatmulJob& job) {
  constexpr auto kSwizzle = device::Swizzle::k128Bytes;
  const int64_t depth = job.depth, boxes = depth / kBoxDepth;
  if (depth % kBoxDepth != 0 || job.cols % kBoxRows != 0) {
    return {device::make_matrix_map(job.weight, job.weight_rows(), depth, kBoxRows, kBoxDepth,
                                    kSwizzle),
            device::make_matrix_map(job.x, job.rows, depth, Shape::kTokens, kBoxDepth, kSwizzle),
            false};
  }
  const CUtensorMap x =
      device::make_tensor_map(job.x, {kBoxDepth, job.rows, boxes}, {depth, kBoxDepth},
                              {kBoxDepth, Shape::kTokens, Shape::kBoxes}, kSwizzle);
  if (!job.gated) {
    return {device::make_tensor_map(job.weight, {kBoxDepth, kBoxRows, boxes, job.cols / kBoxRows},
                                    {depth, kBoxDepth, kBoxRows * depth},
                                    {kBoxDepth, kBoxRows, Shape::kBoxes, 2}, kSwizzle),
            x, true};
  }
  return {device::make_tensor_map(job.weight, {kBoxDepth, kBoxRows, boxes, 2, job.cols / kBoxRows},
                                  {depth, kBoxDepth, job.cols * depth, kBoxRows * depth},
                                  {kBoxDepth, kBoxRows, Shape::kBoxes, 2, 1}, kSwizzle),
          x, true};
}

template <typename T, typename Shape>
void run_shape(const Launch& launch, const MatmulJob& job) {
  prepare<T, Shape>();
  const SwapCut cut = cut_for<Shape>(job);
  const SwapRing ring = ring_for<Shape>(cut);
  const SwapJoin join = {static_cast<float4*>(launch.workspace), queue_number(*launch.queue)};
  const int bytes = std::max(SwapMemory<Shape>{0, ring}.bytes(), kLeastSharedBytes);
  device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(cut.blocks)),
                        dim3(kThreads), static_cast<size_t>(bytes), matmul_swap_kernel<T, Shape>,
                        job, maps_for<Shape>(job), ring, cut, join);
}

/// Calls `function(SwapShape<...>{})` with the shape for this number of rows.
template <typename F>
auto with_shape(int64_t rows, const F& function) {
  if (rows <= 8) return function(SwapShape<8, 3>{});
  if (rows <= 16) return function(SwapShape<16, 3>{});
  if (rows <= 32) return function(SwapShape<32, 3>{});
  return function(SwapShape<64, 2>{});
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
  int64_t floats = 0;
  // Fewer rows are cut in another way.
  for (int64_t rows = 1; rows < 2 * job.rows; rows *= 2) {
    with_shape(rows, [&]<typename Shape>(Shape) {
      floats = std::max(floats, swap::partial_floats(cut_for<Shape>(job), Shape::kTokens));
    });
  }
  return floats * static_cast<int64_t>(sizeof(float));
}

bool matmul_swap_cuda_gates(const Launch& launch) {
  return launch.out[0].dim(1) % kBoxRows == 0;
}

void matmul_swap_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    with_shape(job.rows, [&]<typename Shape>(Shape) { run_shape<T, Shape>(launch, job); });
  });
}

}  // namespace millrace::ops
