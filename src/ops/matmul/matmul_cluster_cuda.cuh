// The kernel of matmul_cluster_cuda.cu. For .cu files.
//
// A tile is up to 64 weight rows for each multiplying warpgroup, the operand of wgmma with 64 rows;
// rows of x ("tokens") are its columns. The blocks of a cluster divide K. One thread of a block
// keeps a ring of stages full by TMA. At the end the ring's memory has the sums, and each block
// adds up and writes a part of the tile's outputs.
#pragma once

#include <cuda.h>

#include "ops/common/hopper.cuh"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_stream_cuda.cuh"
#include "ops/matmul/matmul_weight_map_cuda.cuh"

namespace millrace::ops::cluster {

inline constexpr int kStepDepth = 64;  // elements of K in a stage
inline constexpr int kRowBytes = hopper::kSwizzledRow;
inline constexpr int kGroupRows = 64;  // of the weight, that a warpgroup multiplies
inline constexpr int kTileUnit = 16;   // a warp's
inline constexpr int kMostGroups = 4;
inline constexpr int kMostTileRows = kMostGroups * kGroupRows;
inline constexpr int kMostThreads = kMostGroups * hopper::kWarpgroup + kWarp;
inline constexpr int kMostBlocks = 8;   // of a cluster
inline constexpr int kSumsPadding = 4;  // floats behind the sums of a token, against bank conflicts

/// How a product is cut. Each cluster has one tile.
struct ClusterCut {
  int tile_rows = 0;  // of the weight, a multiple of kTileUnit
  int tiles = 0;
  int steps = 0;     // along K
  int split = 1;     // blocks of a cluster, which divide the steps
  int stages = 0;    // of the ring of the weight
  int x_stages = 0;  // of that of x, which comes from the second-level cache: no more

  /// Warpgroups that multiply. The last one has a part of its rows only, where that is all there
  /// is.
  __host__ __device__ int groups() const { return (tile_rows + kGroupRows - 1) / kGroupRows; }
  __host__ __device__ int multiplying() const { return groups() * hopper::kWarpgroup; }  // threads
  __host__ __device__ int blocks() const { return tiles * split; }
  __host__ __device__ int weight_bytes() const { return tile_rows * kRowBytes; }
  __host__ __device__ int sums_stride() const { return tile_rows + kSumsPadding; }  // floats
  __host__ __device__ int sums_bytes(int tokens) const { return tokens * sums_stride() * 4; }
  __host__ __device__ int ring_bytes(int tokens) const {
    return stages * weight_bytes() + x_stages * tokens * kRowBytes;
  }
  /// The rings, and two barriers for each stage, and one more. Products read all rows of their
  /// groups: behind the weight of a stage lies something, whatever it is.
  __host__ __device__ int shared_bytes(int tokens) const {
    const int beyond = groups() * kGroupRows * kRowBytes - weight_bytes();
    return ring_bytes(tokens) + (2 * stages + 1) * 8 + beyond;
  }
};

/// What is this block's: its part of K, its shared memory.
template <int kTokens>
struct ClusterBlock {
  static constexpr int kXBytes = kTokens * kRowBytes;  // of a stage

  const ClusterCut& cut;
  uint32_t base;
  int tile, rank;
  int first_step, steps;

  __device__ ClusterBlock(const ClusterCut& cut_, uint32_t base_) : cut(cut_), base(base_) {
    tile = static_cast<int>(blockIdx.x) / cut.split;
    rank = static_cast<int>(blockIdx.x) - tile * cut.split;
    first_step = cut.steps * rank / cut.split;
    steps = cut.steps * (rank + 1) / cut.split - first_step;
  }

  __device__ uint32_t x(int slot) const { return base + slot * kXBytes; }
  __device__ uint32_t weight(int slot) const { return x(cut.x_stages) + slot * cut.weight_bytes(); }
  /// A step's operands are there: one arrival, and the bytes of both. By slots of the weight.
  __device__ uint32_t full(int slot) const { return weight(cut.stages) + slot * 8; }
  /// The step is over: one arrival of every multiplying warp.
  __device__ uint32_t empty(int slot) const { return full(cut.stages + slot); }
  /// The sums of all blocks of the tile are there: one arrival of each.
  __device__ uint32_t summed() const { return full(2 * cut.stages); }
};

/// A slot of a ring, and the parity of the phase that its barriers are in.
struct ClusterPlace {
  int slot = 0, phase = 0;

  __device__ void advance(int stages) {
    if (++slot < stages) return;
    slot = 0;
    phase ^= 1;
  }
};

/// Of one thread: copies the steps of this block, in order.
template <int kTokens>
class ClusterCopies {
 public:
  __device__ ClusterCopies(const ClusterBlock<kTokens>& block, const CUtensorMap& weight,
                           const CUtensorMap& x, bool gated)
      : block_(block), weight_(weight), x_(x), gated_(gated) {}

  /// Before wait_for_predecessor().
  __device__ void fill_with_weight() const {
    const ClusterCut& cut = block_.cut;
    hopper::prefetch_map(weight_);
    hopper::prefetch_map(x_);
    for (int i = 0; i < cut.stages; ++i) {
      hopper::init_barrier(block_.full(i), 1);
      hopper::init_barrier(block_.empty(i), cut.multiplying() / kWarp);
    }
    hopper::init_barrier(block_.summed(), cut.split);
    hopper::publish_barriers();
    hopper::order_before_async();
    for (int i = 0; i < min(cut.stages, block_.steps); ++i)
      copy_weight(i, i);
  }

  /// After it.
  __device__ void run() const {
    const ClusterCut& cut = block_.cut;
    ClusterPlace x;  // of the step of which x is copied next
    int x_slot = 0;
    for (int i = 0; i < min(cut.x_stages, block_.steps); ++i)
      copy_x(i, &x, &x_slot);
    ClusterPlace over;
    for (int i = 0; i + cut.x_stages < block_.steps; ++i) {
      hopper::wait_barrier(block_.empty(over.slot), over.phase);
      if (i + cut.stages < block_.steps) copy_weight(i + cut.stages, over.slot);
      copy_x(i + cut.x_stages, &x, &x_slot);
      over.advance(cut.stages);
    }
  }

 private:
  __device__ int first_k(int step) const { return (block_.first_step + step) * kStepDepth; }

  __device__ void copy_weight(int step, int slot) const {
    const uint32_t barrier = block_.full(slot);
    const int tile_rows = block_.cut.tile_rows;
    hopper::arrive_expecting(barrier, block_.cut.weight_bytes() + block_.kXBytes);
    if (gated_) {
      stream::copy_streamed_box(block_.weight(slot), weight_, barrier, first_k(step), 0, 0,
                                block_.tile * (tile_rows / kGatedPair));
    } else {
      stream::copy_streamed_box(block_.weight(slot), weight_, barrier, first_k(step),
                                block_.tile * tile_rows);
    }
  }

  __device__ void copy_x(int step, ClusterPlace* place, int* x_slot) const {
    hopper::copy_box(block_.x(*x_slot), x_, block_.full(place->slot), first_k(step), 0);
    place->advance(block_.cut.stages);
    if (++*x_slot == block_.cut.x_stages) *x_slot = 0;
  }

  const ClusterBlock<kTokens>& block_;
  const CUtensorMap& weight_;
  const CUtensorMap& x_;
  bool gated_;
};

template <typename T, int kN>
__device__ void multiply_tokens(float (&sums)[kN / 2], uint64_t weight, uint64_t x, bool add) {
  if constexpr (kN <= 32) {
    stream::multiply_few<T, kN>(sums, weight, x, add);
  } else {
    hopper::multiply<T, kN, false>(sums, weight, x, add);
  }
}

/// sums = this warpgroup's 64 weight rows, over this block's part of K, times all tokens. A step's
/// memory is given back when the next one's products are under way, or at once if those have to
/// wait.
template <typename T, int kTokens>
__device__ void multiply_steps(const ClusterBlock<kTokens>& block, float (&sums)[kTokens / 2]) {
  const int group = static_cast<int>(threadIdx.x) / hopper::kWarpgroup;
  const bool is_first = threadIdx.x % kWarp == 0;
  ClusterPlace place;
  int x_slot = 0, last_slot = 0;
  hopper::pin(sums);
#pragma unroll 1
  for (int step = 0; step < block.steps; ++step) {
    bool held = step > 0;
    if (!__all_sync(0xffffffffU, hopper::test_barrier(block.full(place.slot), place.phase))) {
      hopper::wait_products<0>();
      if (held && is_first) hopper::arrive(block.empty(last_slot));
      held = false;
      hopper::wait_barrier(block.full(place.slot), place.phase);
    }
    const uint64_t weight =
        hopper::k_major(block.weight(place.slot) + group * kGroupRows * kRowBytes);
    const uint64_t x = hopper::k_major(block.x(x_slot));
    hopper::start_products();
#pragma unroll
    for (int i = 0; i < kStepDepth / 16; ++i) {
      constexpr int kNext = 16 * 2 / 16;  // 16 elements, in the descriptors' units of 16 bytes
      multiply_tokens<T, kTokens>(sums, weight + i * kNext, x + i * kNext, i > 0 || step > 0);
    }
    hopper::commit_products();
    hopper::wait_products<1>();  // the stage before is no longer read
    if (held && is_first) hopper::arrive(block.empty(last_slot));
    last_slot = place.slot;
    place.advance(block.cut.stages);
    if (++x_slot == block.cut.x_stages) x_slot = 0;
  }
  hopper::wait_products<0>();
  hopper::pin(sums);
}

/// This thread's sums to shared memory: [token][weight row].
template <int kTokens>
__device__ void store_sums(const float (&sums)[kTokens / 2], int stride, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  to += static_cast<int>(threadIdx.x) / kWarp * 16 + lane / 4 + lane % 4 * 2 * stride;
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i)
    to[(i / 4 * 8 + i % 2) * stride + i / 2 % 2 * 8] = sums[i];
}

/// By a third of the instructions of activate(), off by at most 2^-16 of it: all outputs of a tile
/// are made at once, when no copies are under way any more.
__device__ inline float silu(float x) {
  return __fdividef(x, 1.0F + __expf(-x));
}

/// Whether a thread gates its sums, which then are half as many, before others see them.
__device__ inline bool gates_early(const MatmulJob& job, const ClusterCut& cut) {
  return job.gated && cut.split == 1 && job.activation == ActivationKind::kSilu;
}

/// The outputs of this thread's sums to shared memory: [token][output].
template <int kTokens>
__device__ void store_gated(const ClusterBlock<kTokens>& block, const MatmulJob& job,
                            const float (&sums)[kTokens / 2], float* to) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int output = static_cast<int>(threadIdx.x) / kWarp * 8 + lane / 4;
  const int stride = block.cut.sums_stride();
  const int64_t n = int64_t{block.tile} * (block.cut.tile_rows / 2) + output;
  float gate_bias = 0, up_bias = 0;
  if (job.bias != nullptr && n < job.cols) {
    gate_bias = bits_to_float(load_bits(job.bias, job.bias_type, n), job.bias_type);
    up_bias = bits_to_float(load_bits(job.bias, job.bias_type, job.cols + n), job.bias_type);
  }
  to += output + lane % 4 * 2 * stride;
#pragma unroll
  for (int i = 0; i < kTokens / 4; ++i) {
    const int gate = i / 2 * 4 + i % 2;
    to[(i / 2 * 8 + i % 2) * stride] = silu(sums[gate] + gate_bias) * (sums[gate + 2] + up_bias);
  }
}

/// sums = those at this place of the sums of all blocks of the tile, in the order of K.
template <int kCount, int kTokens>
__device__ void add_ranks(const ClusterBlock<kTokens>& block, const float* own,
                          float (&sums)[kCount]) {
  constexpr int kPacks = kCount / 4;
  constexpr int kAtOnce = 4;  // ranks whose loads fly together
  if (block.cut.split == 1) return load_floats<kCount>(own, sums);
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    sums[i] = 0;
#pragma unroll 1
  for (int rank = 0; rank < block.cut.split; rank += kAtOnce) {
    float4 parts[kAtOnce][kPacks] = {};
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (rank + j >= block.cut.split) break;
#pragma unroll
      for (int i = 0; i < kPacks; ++i)
        parts[j][i] = stream::load_from_block(hopper::address_in_shared(own + i * 4), rank + j);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        sums[4 * i] += parts[j][i].x;
        sums[4 * i + 1] += parts[j][i].y;
        sums[4 * i + 2] += parts[j][i].z;
        sums[4 * i + 3] += parts[j][i].w;
      }
    }
  }
}

/// Writes outputs [t, n .. n + 7] of a gated product from the sums of the gate, then of up.
__device__ inline void write_gated_eight(const MatmulJob& job, int64_t t, int64_t n,
                                         const float (&sums)[16]) {
  float gate[8], up[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    gate[i] = sums[i];
    up[i] = sums[8 + i];
  }
  activate_eight(job, n, gate);
  if (job.bias != nullptr) {
    float bias[8];
    load_eight(job.bias, job.bias_type, job.cols + n, bias);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      up[i] += bias[i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i)
    gate[i] *= up[i];
  store_eight(job, t * job.cols + n, gate);
}

/// Writes outputs [t, n .. n + 7], n a multiple of 8.
__device__ inline void write_plain(const MatmulJob& job, int64_t t, int64_t n,
                                   const float (&sums)[8]) {
  if (job.cols % 8 == 0) return write_eight(job, t, n, sums);
#pragma unroll 1
  for (int j = 0; j < 8 && n + j < job.cols; ++j)
    write_out(job, t, n + j, sums[j]);
}

/// Of the multiplying threads: this block's share of its tile's outputs, eight neighbours a thread.
/// Shares are whole rows as far as possible.
template <int kTokens>
__device__ void write_share(const ClusterBlock<kTokens>& block, const MatmulJob& job,
                            const float* staged) {
  const ClusterCut& cut = block.cut;
  const bool is_gated = gates_early(job, cut);
  const int units = cut.tile_rows / (job.gated ? kGatedPair : 8);  // of eight outputs
  const int stride = job.gated && !is_gated ? kGatedPair : 8;      // floats
  const int all = units * static_cast<int>(job.rows);
  const int end = all * (block.rank + 1) / cut.split;
  const int begin = all * block.rank / cut.split;
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += cut.multiplying()) {
    const int t = i / units;
    const int unit = i - t * units;
    const int64_t n = (int64_t{block.tile} * units + unit) * 8;
    if (n >= job.cols) continue;
    const float* at = staged + t * cut.sums_stride() + unit * stride;
    if (job.gated && !is_gated) {
      float sums[16];
      add_ranks(block, at, sums);
      write_gated_eight(job, t, n, sums);
      continue;
    }
    alignas(16) float sums[8];
    add_ranks(block, at, sums);
    if (is_gated) {
      store_eight(job, t * job.cols + n, sums);
    } else {
      write_plain(job, t, n, sums);
    }
  }
}

/// Of the multiplying warps.
template <typename T, int kTokens>
__device__ void multiply_tile(const ClusterBlock<kTokens>& block, const MatmulJob& job,
                              float* staged) {
  constexpr int kBarrier = 1;
  const ClusterCut& cut = block.cut;
  float sums[kTokens / 2];
  multiply_steps<T>(block, sums);
  hopper::sync_named(kBarrier, cut.multiplying());  // the ring is no longer read
  if (static_cast<int>(threadIdx.x) / kWarp * kTileUnit >= cut.tile_rows) {
    // The tile ends before this warp's rows.
  } else if (gates_early(job, cut)) {
    store_gated(block, job, sums, staged);
  } else {
    store_sums<kTokens>(sums, cut.sums_stride(), staged);
  }
  hopper::sync_named(kBarrier, cut.multiplying());
  if (cut.split > 1) {
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < cut.split) stream::hand_over(block.summed(), thread);
    stream::wait_for_blocks(block.summed(), 0);
  }
  write_share(block, job, staged);
}

template <typename T, int kTokens>
__global__ void __launch_bounds__(kMostThreads, 1)
    matmul_cluster_kernel(const __grid_constant__ MatmulJob job,
                          const __grid_constant__ CUtensorMap weight_map,
                          const __grid_constant__ CUtensorMap x_map,
                          const __grid_constant__ ClusterCut cut) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const ClusterBlock<kTokens> block(cut, hopper::address_in_shared(bytes));
  const ClusterCopies<kTokens> copies(block, weight_map, x_map, job.gated);
  const bool copies_boxes = static_cast<int>(threadIdx.x) == cut.multiplying();
  if (copies_boxes) copies.fill_with_weight();
  __syncwarp();
  if (cut.split == 1) {
    __syncthreads();
  } else {
    stream::meet_cluster();
  }
  device::wait_for_predecessor();
  if (static_cast<int>(threadIdx.x) < cut.multiplying()) {
    multiply_tile<T>(block, job, reinterpret_cast<float*>(bytes));
  } else if (copies_boxes) {
    copies.run();
  }
  __syncwarp();
  if (cut.split > 1) stream::meet_cluster();  // others may still read this block's sums
}

}  // namespace millrace::ops::cluster
