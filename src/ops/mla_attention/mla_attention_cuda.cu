// The absorbed form, for every row or for those of some sequences. A block has a row and two of its
// heads; eight warps share the keys of a head, each with a running softmax of its own, and join at
// the end.
//
//   warp (head h, part p)   keys p, p + 8, p + 16, ...   -> largest logit, sum, latents [C]
//
// Grids follow from the shape, lengths are read on the device, and the order of sums follows from
// the length of the row's sequence. Element types are told apart in front of the loops.
#include <cmath>
#include <numeric>

#include "ops/common/element_types_cuda.cuh"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {
namespace {

using In = MlaInputs;

constexpr int kHeads = 2;  // of a block
constexpr int kParts = 8;  // of the keys of a head
constexpr int kThreads = kHeads * kParts * kWarp;
constexpr int kMaxLatent = 512, kMaxCached = 640;
constexpr int kLaneLatents = kMaxLatent / kWarp;  // of a lane

struct MlaArgs {
  const std::byte* q;              // [T, H*(Dn+R)]
  const std::byte* kv_b;           // [H*(Dn+Dv), C]
  std::byte* out;                  // [T, H*Dv]
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  const int32_t* blocks;           // [S, blocks_per_sequence]
  int64_t blocks_per_sequence;
  int first_sequence, end_sequence;  // whose rows are computed
  int context_sequences;             // which come first and have their past in their own blocks
  const int32_t* indirection;        // [R, positions] of beams, or null
  const int32_t* slots;              // [S]
  int64_t positions;
  const std::byte* plane;  // in block 0
  int64_t block_bytes;
  int tokens_per_block;
  MlaShape shape;
  float scale;
  ir::DType type, cache_type, weight_type;

  __device__ int64_t block(int sequence, int64_t position) const {
    int64_t holder = sequence;
    if (indirection != nullptr && sequence >= context_sequences) {
      holder += indirection[slots[sequence] * positions + position];
    }
    return blocks[holder * blocks_per_sequence + position / tokens_per_block];
  }
};

struct Shared {
  float q[kHeads][kMaxCached];                // as a token is cached
  float latents[kHeads][kParts][kMaxLatent];  // sums of each part
  float largest[kHeads][kParts], total[kHeads][kParts];
  int sequence;
  int64_t row;  // of the step
};

/// Finds the index-th row of the sequences, counted in their order; sequence -1: there are fewer.
/// Of the first warp.
__device__ void find_row(const MlaArgs& a, int index, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane == 0) shared.sequence = -1;
  __syncwarp();
  int before = 0;  // rows of the sequences before `first`
  for (int first = a.first_sequence; first < a.end_sequence && before <= index; first += kWarp) {
    const int sequence = first + lane;
    const int rows = sequence < a.end_sequence ? a.query_length[sequence] : 0;
    int end = rows;  // becomes that of the sequences from `first` to this lane's
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, end, step);
      if (lane >= step) end += other;
    }
    const int i = index - before - (end - rows);
    if (i >= 0 && i < rows) {
      shared.sequence = sequence;
      shared.row = int64_t{a.query_start[sequence]} + i;
    }
    before += __shfl_sync(0xffffffffu, end, kWarp - 1);
  }
}

/// One row and head of the launch, in the hands of one warp.
struct Part {
  const MlaArgs& a;
  Shared& shared;
  int head, local_head, part, lane;

  template <typename W>
  const __device__ W* weight_row(int d) const {
    const MlaShape& s = a.shape;
    return reinterpret_cast<const W*>(a.kv_b) +
           (int64_t{head} * (s.nope_size + s.v_size) + d) * s.latent_size;
  }

  /// This part's elements of K_h^T qn, and one part of them all copies qr.
  template <typename T, typename W>
  __device__ void absorb(int64_t row) const {
    const MlaShape& s = a.shape;
    const T* q = reinterpret_cast<const T*>(a.q) + (row * s.heads + head) * s.q_size();
    for (int c = part * kWarp + lane; c < s.latent_size; c += kParts * kWarp) {
      float sum = 0;
      for (int d = 0; d < s.nope_size; ++d)
        sum = fmaf(to_float(q[d]), to_float(weight_row<W>(d)[c]), sum);
      shared.q[local_head][c] = sum;
    }
    for (int r = part * kWarp + lane; r < s.rope_size; r += kParts * kWarp)
      shared.q[local_head][s.latent_size + r] = to_float(q[s.nope_size + r]);
  }

  /// Every kParts-th key up to `position`.
  template <typename Stored>
  __device__ void attend(int sequence, int64_t position) const {
    const MlaShape& s = a.shape;
    const float* q = shared.q[local_head];
    float latents[kLaneLatents] = {};
    float largest = -INFINITY, total = 0;
    for (int64_t j = part; j <= position; j += kParts) {
      const Stored* key =
          reinterpret_cast<const Stored*>(a.plane + a.block(sequence, j) * a.block_bytes) +
          j % a.tokens_per_block * s.cached();
      float values[kLaneLatents];
      float logit = 0;
#pragma unroll
      for (int i = 0; i < kLaneLatents; ++i) {
        const int c = i * kWarp + lane;
        values[i] = c < s.latent_size ? to_float(key[c]) : 0;
        if (c < s.latent_size) logit = fmaf(q[c], values[i], logit);
      }
      for (int c = s.latent_size + lane; c < s.cached(); c += kWarp)
        logit = fmaf(q[c], to_float(key[c]), logit);
      logit = a.scale * warp_sum(logit);
      const float now = fmaxf(largest, logit);
      const float correction = expf(largest - now), p = expf(logit - now);
      largest = now;
      total = fmaf(total, correction, p);
#pragma unroll
      for (int i = 0; i < kLaneLatents; ++i)
        latents[i] = fmaf(latents[i], correction, p * values[i]);
    }
#pragma unroll
    for (int i = 0; i < kLaneLatents; ++i) {
      const int c = i * kWarp + lane;
      if (c < s.latent_size) shared.latents[local_head][part][c] = latents[i];
    }
    if (lane == 0) {
      shared.largest[local_head][part] = largest;
      shared.total[local_head][part] = total;
    }
  }

  /// The parts' sums become one, the mean, in the place of the first; parts share the elements.
  __device__ void join() const {
    float largest = -INFINITY, total = 0, factors[kParts];
#pragma unroll
    for (int p = 0; p < kParts; ++p)
      largest = fmaxf(largest, shared.largest[local_head][p]);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      factors[p] = expf(shared.largest[local_head][p] - largest);  // 0 for a part without keys
      total = fmaf(shared.total[local_head][p], factors[p], total);
    }
    for (int c = part * kWarp + lane; c < a.shape.latent_size; c += kParts * kWarp) {
      float sum = 0;
#pragma unroll
      for (int p = 0; p < kParts; ++p)
        sum = fmaf(shared.latents[local_head][p][c], factors[p], sum);
      shared.latents[local_head][0][c] = sum / total;
    }
  }

  /// V_h times the mean; a warp makes every kParts-th element.
  template <typename W>
  __device__ void write(int64_t row) const {
    const MlaShape& s = a.shape;
    const int64_t out = (row * s.heads + head) * s.v_size;
    for (int d = part; d < s.v_size; d += kParts) {
      float sum = 0;
      for (int c = lane; c < s.latent_size; c += kWarp)
        sum = fmaf(shared.latents[local_head][0][c], to_float(weight_row<W>(s.nope_size + d)[c]),
                   sum);
      sum = warp_sum(sum);
      if (lane == 0) store_element(a.out, a.type, out + d, sum);
    }
  }
};

__global__ void __launch_bounds__(kThreads)
    mla_attention_kernel(const __grid_constant__ MlaArgs a) {
  __shared__ Shared shared;
  device::let_successor_start();
  device::wait_for_predecessor();
  if (threadIdx.x < kWarp) find_row(a, static_cast<int>(blockIdx.x), shared);
  __syncthreads();
  const int sequence = shared.sequence;
  if (sequence < 0) return;
  const int64_t row = shared.row;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int local_head = warp / kParts;
  const int head = static_cast<int>(blockIdx.y) * kHeads + local_head;
  const bool has_head = head < a.shape.heads;
  const Part part{a,          shared,        head,
                  local_head, warp % kParts, static_cast<int>(threadIdx.x) % kWarp};
  const int64_t position = int64_t{a.sequence_length[sequence]} - a.query_length[sequence] + row -
                           a.query_start[sequence];
  if (has_head) {
    on_float_type(a.type, [&]<typename T>(T) {
      on_float_type(a.weight_type, [&]<typename W>(W) { part.absorb<T, W>(row); });
    });
  }
  __syncthreads();
  if (has_head) {
    on_float_type(a.cache_type,
                  [&]<typename Stored>(Stored) { part.attend<Stored>(sequence, position); });
  }
  __syncthreads();
  if (has_head) part.join();
  __syncthreads();
  if (has_head) on_float_type(a.weight_type, [&]<typename W>(W) { part.write<W>(row); });
}

/// For the rows of sequences [first, end).
MlaArgs mla_args(const Launch& launch, int first, int end) {
  const SequenceRows sequences = mla_sequences(launch, RequestType::kGeneration);
  const KvCacheView& cache = *sequences.cache;
  const auto& attributes = launch.attrs<MlaAttention>();
  return {.q = launch.in[In::kQ].as<std::byte>(),
          .kv_b = launch.in[In::kKvB].as<std::byte>(),
          .out = launch.out[0].as<std::byte>(),
          .sequence_length = sequences.sequence_length,
          .query_start = sequences.query_start,
          .query_length = sequences.query_length,
          .blocks = sequences.block_offsets,
          .blocks_per_sequence = sequences.blocks_per_sequence,
          .first_sequence = first,
          .end_sequence = end,
          .context_sequences = count_context_sequences(launch),
          .indirection = sequences.indirection,
          .slots = sequences.slots,
          .positions = sequences.positions,
          .plane = cache.pool + cache.k_offset,
          .block_bytes = cache.block_bytes,
          .tokens_per_block = cache.tokens_per_block,
          .shape = mla_shape(attributes),
          .scale = static_cast<float>(attributes.scale),
          .type = float_type(launch.in[In::kQ].dtype),
          .cache_type = float_type(cache.dtype),
          .weight_type = float_type(launch.in[In::kKvB].dtype)};
}

/// A block's row is the index-th of those that `args` asks for, index < rows.
void launch_rows(const Launch& launch, const MlaArgs& args, int64_t rows) {
  if (rows == 0) return;
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>((args.shape.heads + kHeads - 1) / kHeads));
  device::launch_kernel("mla_attention_cuda", *launch.queue, grid, dim3(kThreads), 0,
                        mla_attention_kernel, args);
}

}  // namespace

std::string mla_attention_cuda_why_not(const Launch& launch, const device::Properties&) {
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  if (shape.latent_size > kMaxLatent) return str("a latent of more than ", kMaxLatent);
  return shape.cached() > kMaxCached ? str("more than ", kMaxCached, " cached elements a token")
                                     : "";
}

// Captured, it is replayed for other lengths, so that there are blocks for as many rows as the step
// could have.
void mla_attention_cuda(const Launch& launch) {
  const SequenceRows sequences = mla_sequences(launch, RequestType::kGeneration);
  launch_rows(launch, mla_args(launch, 0, static_cast<int>(sequences.num_sequences)),
              launch.out[0].dim(0));
}

void mla_attention_rows_cuda(const Launch& launch, int first,
                             std::span<const int32_t> query_lengths) {
  const int end = first + static_cast<int>(query_lengths.size());
  launch_rows(launch, mla_args(launch, first, end),
              std::accumulate(query_lengths.begin(), query_lengths.end(), int64_t{0}));
}

}  // namespace millrace::ops
