// Few rows of x: every weight is read from memory once, in place, and used for all of them.
// Each output is one chain of vector additions over K, so that its bits are the same whatever rows
// are computed beside it. V: ops/common/vec_avx2.h, vec_avx512.h.
//
// What limits this is how many requests to memory are on their way. Several rows of the weight are
// read side by side, and each of these streams goes on from row to row without a gap: the hardware
// follows it over page borders. With streams of neighbouring rows, which end together and jump,
// bf16 rows of 4 KiB come at 33 GB/s instead of 44 (2 threads, AMD EPYC 7003), with software
// prefetches too. Conversions and products keep the core from running ahead to the next loads, so
// the streams are also fetched ahead: of what the same threads can read, one row of x then gets
// 0.99 instead of 0.81 from bf16 weights, with AVX2 and with AVX-512, two rows 0.84 and 0.90
// instead of 0.77 and 0.78 (2 threads, Intel Xeon of the Emerald Rapids kind). 512 bytes are best
// there, 2 KiB and more worse; a page size of 4 KiB makes no difference.
#pragma once

#include <algorithm>

#include "ops/common/matmul_epilogue.h"
#include "ops/common/matmul_kernels.h"

namespace millrace::ops {

/// Rows of x at a time: as many as leave registers for the sums.
template <typename V>
inline constexpr int64_t kMaxTile = V::kWidth == 16 ? 6 : 4;

inline constexpr int64_t kPrefetchBytes = 512;

/// The sums of R rows of the weight, of type W, with C rows of x.
template <typename V, typename W, int R, int C>
struct RowsTile {
  static constexpr int64_t kLine = 64 / sizeof(W);  // elements

  const W* weight;
  int64_t weight_stride;  // from one of the R rows to the next
  const float* x;         // [C, K]
  int64_t depth;          // K
  V sums[R][C];

  static const char* as_bytes(const W* p) { return reinterpret_cast<const char*>(p); }

  template <typename Lanes>
  void step(int64_t k, Lanes lanes) {
    V xs[C];
    for (int c = 0; c < C; ++c)
      xs[c] = load<V>(x + c * depth + k, lanes);
    for (int r = 0; r < R; ++r) {
      const V w = load<V>(weight + r * weight_stride + k, lanes);
      for (int c = 0; c < C; ++c)
        sums[r][c] = fma(w, xs[c], sums[r][c]);
    }
  }

  void multiply() {
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        sums[r][c] = V::zero();
    }
    int64_t k = 0;
    for (; k + kLine <= depth; k += kLine) {
      for (int r = 0; r < R; ++r)
        __builtin_prefetch(as_bytes(weight + r * weight_stride + k) + kPrefetchBytes);
#pragma GCC unroll 4
      for (int64_t i = 0; i < kLine; i += V::kWidth)
        step(k + i, AllLanes{});
    }
    for (; k + V::kWidth <= depth; k += V::kWidth)
      step(k, AllLanes{});
    if (k < depth) step(k, FirstLanes{depth - k});
  }
};

/// Columns n, n + stride, ... of rows [t, t + C).
template <typename V, typename W, int R, int C>
void multiply_rows_tile(const MatmulJob& job, int64_t stride, int64_t n, int64_t t) {
  RowsTile<V, W, R, C> tile;
  tile.weight = static_cast<const W*>(job.weight) + n * job.depth;
  tile.weight_stride = stride * job.depth;
  tile.x = static_cast<const float*>(job.x) + t * job.depth;
  tile.depth = job.depth;
  tile.multiply();
  float* out = static_cast<float*>(job.out) + t * job.cols + n;
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c)
      out[c * job.cols + r * stride] = sum(tile.sums[r][c]);
  }
}

/// Columns n, n + stride, ... (R of them) of all rows, in tiles of about equal height.
template <typename V, typename W, int R>
void multiply_rows_block(const MatmulJob& job, int64_t stride, int64_t n) {
  const int64_t tiles = (job.rows + kMaxTile<V> - 1) / kMaxTile<V>;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t t = job.rows * i / tiles;
    switch (job.rows * (i + 1) / tiles - t) {
      case 1:
        multiply_rows_tile<V, W, R, 1>(job, stride, n, t);
        break;
      case 2:
        multiply_rows_tile<V, W, R, 2>(job, stride, n, t);
        break;
      case 3:
        multiply_rows_tile<V, W, R, 3>(job, stride, n, t);
        break;
      case 4:
        multiply_rows_tile<V, W, R, 4>(job, stride, n, t);
        break;
      case 5:
        if constexpr (kMaxTile<V> >= 5) multiply_rows_tile<V, W, R, 5>(job, stride, n, t);
        break;
      default:
        if constexpr (kMaxTile<V> >= 6) multiply_rows_tile<V, W, R, 6>(job, stride, n, t);
    }
  }
}

/// All columns of the part, in R streams of about the same length.
template <typename V, typename W, int R>
void multiply_rows_streams(const MatmulJob& job, const MatmulPart& part) {
  const int64_t stream = (part.col_end - part.col_begin) / R;
  for (int64_t i = 0; i < stream; ++i)
    multiply_rows_block<V, W, R>(job, stream, part.col_begin + i);
  for (int64_t n = part.col_begin + R * stream; n < part.col_end; ++n)
    multiply_rows_block<V, W, 1>(job, 1, n);
}

/// All rows of the part's columns. With one row of x, eight sums hide the latency of the addition.
template <typename V>
void multiply_rows(const MatmulJob& job, const MatmulPart& part) {
  with_float_type(job.weight_type, [&]<typename W>(TypeTag<W>) {
    if (job.rows == 1) {
      multiply_rows_streams<V, W, 8>(job, part);
    } else if (V::kWidth == 16 || job.rows <= 3) {
      multiply_rows_streams<V, W, 4>(job, part);
    } else {
      multiply_rows_streams<V, W, 3>(job, part);
    }
  });
  const bool has_epilogue =
      job.bias != nullptr || job.residual != nullptr || job.activation != ActivationKind::kNone;
  if (has_epilogue) {
    finish<V>(job, part, static_cast<const float*>(job.out) + part.col_begin, job.cols);
  }
}

}  // namespace millrace::ops
