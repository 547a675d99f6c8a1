// The arg-max of rows that do not draw, where rows are many: one block, or a few, has a row and
// keeps nothing of it, so that all rows are read side by side. For .cu files.
#pragma once

#include "ops/common/sampling_cluster_cuda.cuh"
#include "ops/sample_token/sample_token_io.h"

namespace millrace::ops {

inline constexpr int kGreedyThreads = 512;
inline constexpr int kGreedyWarps = kGreedyThreads / kWarp;
inline constexpr int kGreedyReads = 8;  // of a thread, under way at a time

const __device__ inline SamplingRow& row_of(const SampleTokenIo& io, int64_t l) {
  return reinterpret_cast<const SamplingRow*>(io.rows)[l];
}

/// Whether the row takes an arg-max.
__device__ inline bool is_greedy(const SamplingRow& row) {
  return row.slot >= 0 && (row.flags & kSamplingDraws) == 0;
}

/// Of the largest logit: what keeps a row from a choice.
__device__ inline SamplingStatus status_of_ranked(uint64_t best) {
  if (key_of_ranked(best) == kNanKey) return kSamplingNotFinite;
  return status_of_max(float_of_key(key_of_ranked(best)));
}

/// The largest of what a thread has seen; tokens come in ascending order.
struct LargestLogit {
  float value = -__builtin_inff();
  int token = 0;
  bool has_nan = false;

  __device__ void add(float x, int at) {
    has_nan = has_nan || isnan(x);
    if (x > value) {
      value = x;
      token = at;
    }
  }
  __device__ uint64_t as_ranked() const {
    return ranked(has_nan ? __builtin_nanf("") : value, token);
  }
};

/// The largest of tokens [begin, end), which are multiples of kPack, for each thread's part.
template <int kPack>
__device__ LargestLogit largest_logit(const float* x, int begin, int end) {
  constexpr int kStep = kGreedyThreads * kPack;
  LargestLogit largest;
  for (int first = begin + static_cast<int>(threadIdx.x) * kPack; first < end;
       first += kGreedyReads * kStep) {
    Pack<float, kPack> packs[kGreedyReads];
#pragma unroll
    for (int j = 0; j < kGreedyReads; ++j) {
      if (first + j * kStep < end) {
        packs[j] = *reinterpret_cast<const Pack<float, kPack>*>(x + first + j * kStep);
      }
    }
#pragma unroll
    for (int j = 0; j < kGreedyReads; ++j) {
      if (first + j * kStep >= end) break;
#pragma unroll
      for (int part = 0; part < kPack; ++part)
        largest.add(packs[j].at[part], first + j * kStep + part);
    }
  }
  return largest;
}

/// Grid: a cluster per row. `split` says whether rows lie on 16 bytes.
__global__ void __launch_bounds__(kGreedyThreads, 2)
    greedy_rows_kernel(SampleTokenIo io, RowSplit split) {
  __shared__ uint64_t best_of_warps[kGreedyWarps];
  __shared__ uint64_t best_of_block;
  device::let_successor_start();
  device::wait_for_predecessor();
  const RowTeam cluster = row_team();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int64_t l = blockIdx.x / blocks;
  const SamplingRow& row = row_of(io, l);
  if (!is_greedy(row)) return;  // so does every block of the cluster
  const float* x = io.logits_of(row, l);
  const int vocab = static_cast<int>(io.vocab);
  const int part = (vocab + blocks * kPackedLogits - 1) / (blocks * kPackedLogits) * kPackedLogits;
  const int begin = min(rank * part, vocab), end = min(begin + part, vocab);
  const LargestLogit own = split.is_packed ? largest_logit<kPackedLogits>(x, begin, end)
                                           : largest_logit<1>(x, begin, end);
  const uint64_t of_warp = warp_max(own.as_ranked());
  if (threadIdx.x % kWarp == 0) best_of_warps[threadIdx.x / kWarp] = of_warp;
  __syncthreads();
  uint64_t best = 0;
  for (int w = 0; w < kGreedyWarps; ++w)
    best = max(best, best_of_warps[w]);
  if (blocks > 1) {
    if (threadIdx.x == 0) best_of_block = best;
    cluster.sync();
    if (rank == 0 && threadIdx.x == 0) {
      for (int r = 1; r < blocks; ++r)
        best = max(best, *cluster.map_shared_rank(&best_of_block, r));
    }
    cluster.sync();  // until the first block has read what the others found
  }
  if (rank == 0 && threadIdx.x == 0) {
    io.put(row, l, token_of_ranked(best), status_of_ranked(best));
  }
}

}  // namespace millrace::ops
