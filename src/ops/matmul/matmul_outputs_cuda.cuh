// How warps that have sums of wgmma products in registers write outputs: by way of shared memory, a
// few columns at a time, so that neighbours go to memory together. For .cu files.
#pragma once

#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {

inline constexpr int kOutCols = 32;  // that a warp stages before it writes them
inline constexpr int kOutFloats = 16 * kOutCols;

/// Where a row's 16 bytes `unit` lie in [16, 32] staged floats. They change places by the row's low
/// bits: four rows of two neighbouring units, which are written at once, are in different banks,
/// and so are two rows of every second unit, which are read at once.
__device__ inline int staged_at(int row, int unit) {
  return row * kOutCols + (unit ^ (row % 4 * 2 + row % 2)) * 4;
}

/// Sums of columns [32 chunk, + 32) to shared memory.
template <int kCount>
__device__ inline void stage_chunk(const float (&sums)[kCount], int chunk, float* staged) {
  const int lane = threadIdx.x % kWarp;
  constexpr int kEights = kOutCols / 8;
#pragma unroll
  for (int c = 0; c * 4 * kEights < kCount; ++c) {  // registers have no run-time index
    if (c != chunk) continue;
#pragma unroll
    for (int j = 0; j < kEights && (c * kEights + j) * 4 < kCount; ++j) {
      const float* from = sums + (c * kEights + j) * 4;
      float* to = staged + staged_at(lane / 4, 2 * j + lane % 4 / 2) + lane % 2 * 2;
      *reinterpret_cast<Pack<float, 2>*>(to) = {from[0], from[1]};
      *reinterpret_cast<Pack<float, 2>*>(to + 8 * kOutCols) = {from[2], from[3]};
    }
  }
}

/// Of write_rows: nobody wants to see the outputs.
struct NobodySees {
  __device__ void operator()(int, int64_t, int64_t, const float (&)[8]) const {}
};

/// Eight outputs from two units of staged sums; `residual`: what is to be added to them, as it lies
/// in memory; see(half, t, n, values), see write_rows.
template <typename T, typename See>
__device__ inline void write_staged(const MatmulJob& job, int64_t t, int64_t n, const float* low,
                                    const float* high, const Pack<T, 8>& residual, int half,
                                    const See& see) {
  float values[8];
  load_floats<4>(low, values);
  load_floats<4>(high, values + 4);
  activate_eight(job, n, values);
  if (job.residual != nullptr) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      values[i] += to_float(residual.at[i]);
  }
  store_eight(job, t * job.cols + n, values);
  see(half, t, n, values);
}

/// The same where rows of the outputs are not aligned, or end among the eight.
__device__ inline void write_staged_singly(const MatmulJob& job, int64_t t, int64_t n,
                                           const float* low, const float* high) {
#pragma unroll 1
  for (int j = 0; j < 8 && n + j < job.cols; ++j)
    write_out(job, t, n + j, j < 4 ? low[j] : high[j - 4]);
}

/// This warp's 16 rows of a tile, `cols` columns of it; (first_t, first_n) is the first output. A
/// lane writes eights of columns in two rows. Residuals are read one chunk ahead. see(half, t, n,
/// values): what is written of row t, which is the lane's first or second one, from column n on.
template <typename T, int kCount, typename See = NobodySees>
__device__ inline void write_rows(const MatmulJob& job, const float (&sums)[kCount],
                                  int64_t first_t, int64_t first_n, int cols, float* staged,
                                  const See& see = {}) {
  constexpr int kChunks = (kCount * 2 + kOutCols - 1) / kOutCols;
  const int lane = threadIdx.x % kWarp;
  const int row = lane / 4;
  const int64_t end = min(job.cols, first_n + cols);
  const int64_t t = first_t + row;
  int64_t n = first_n + lane % 4 * 8;
  const float* low = staged + staged_at(row, lane % 4 * 2);
  const float* high = staged + staged_at(row, lane % 4 * 2 + 1);
  const bool whole = job.cols % 8 == 0;
  Pack<T, 8> next[2] = {};
  const auto fetch = [&](int64_t col) {
    if (job.residual == nullptr || !whole || col >= end) return;
    const T* at = static_cast<const T*>(job.residual) + t * job.cols + col;
    if (t < job.rows) next[0] = *reinterpret_cast<const Pack<T, 8>*>(at);
    if (t + 8 < job.rows) next[1] = *reinterpret_cast<const Pack<T, 8>*>(at + 8 * job.cols);
  };
  fetch(n);
#pragma unroll 1
  for (int chunk = 0; chunk < kChunks && chunk * kOutCols < cols; ++chunk, n += kOutCols) {
    const Pack<T, 8> residual[2] = {next[0], next[1]};
    if (chunk + 1 < kChunks) fetch(n + kOutCols);
    stage_chunk(sums, chunk, staged);
    __syncwarp();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int offset = 8 * half * kOutCols;
      if (t + 8 * half >= job.rows || n >= end) continue;
      if (whole) {
        write_staged(job, t + 8 * half, n, low + offset, high + offset, residual[half], half, see);
      } else {
        write_staged_singly(job, t + 8 * half, n, low + offset, high + offset);
      }
    }
    __syncwarp();
  }
}

/// Likewise of a gated product; (first_t, first_n) is the first output. Staged columns are groups
/// of 8 sums of the gate and of up in turn: a lane writes fours in two rows.
template <int kCount>
__device__ inline void write_gated_rows(const MatmulJob& job, const float (&sums)[kCount],
                                        int64_t first_t, int64_t first_n, int cols, float* staged) {
  constexpr int kChunks = (kCount * 2 + kOutCols - 1) / kOutCols;
  const int lane = threadIdx.x % kWarp;
  const int64_t end = min(job.cols, first_n + cols);
  const int64_t t = first_t + lane / 4;
  int64_t n = first_n + lane % 4 * 4;
  const int unit = lane % 4 / 2 * 4 + lane % 2;  // of the gate; up's lie two further
  const float* gate = staged + staged_at(lane / 4, unit);
  const float* up = staged + staged_at(lane / 4, unit + 2);
#pragma unroll 1
  for (int chunk = 0; chunk < kChunks && chunk * kOutCols < 2 * cols; ++chunk, n += kOutCols / 2) {
    stage_chunk(sums, chunk, staged);
    __syncwarp();
    if (n < end) {
      if (t < job.rows) write_gated_four(job, t, n, gate, up);
      if (t + 8 < job.rows) write_gated_four(job, t + 8, n, gate + 8 * kOutCols, up + 8 * kOutCols);
    }
    __syncwarp();
  }
}

}  // namespace millrace::ops
