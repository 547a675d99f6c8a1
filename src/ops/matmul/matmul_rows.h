// Few rows of x: every weight is read from memory once, in place, and used for all of them.
// Each output is one chain of vector additions over K, so that its bits are the same whatever rows
// are computed beside it. V: ops/common/vec_avx2.h, vec_avx512.h.
#pragma once

#include <algorithm>

#include "ops/matmul/matmul_epilogue.h"
#include "ops/matmul/matmul_kernels.h"

namespace millrace::ops {

/// Rows of x at a time: as many as leave registers for the sums.
template <typename V>
inline constexpr int64_t kMaxTile = V::kWidth == 16 ? 6 : 4;
// The hardware follows a stream of weights within a row. The heads of the next rows are asked for
// while the present ones end, and the next rows as a whole where the present ones are still used.
inline constexpr int64_t kHeadBytes = 512;

/// The sums of R rows of the weight, W [R, K], with C rows of x, [C, K].
template <typename V, typename W, int R, int C>
struct RowsTile {
  static constexpr int64_t kLine = 64 / sizeof(W);  // elements

  const W* weight;
  const float* x;
  int64_t depth;  // K
  int64_t ahead;  // bytes of each of the next R rows to ask for
  V sums[R][C];

  template <typename Lanes>
  void step(int64_t k, Lanes lanes) {
    V xs[C];
    for (int c = 0; c < C; ++c)
      xs[c] = load<V>(x + c * depth + k, lanes);
    for (int r = 0; r < R; ++r) {
      const V w = load<V>(weight + r * depth + k, lanes);
      for (int c = 0; c < C; ++c)
        sums[r][c] = fma(w, xs[c], sums[r][c]);
    }
  }

  void lines(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; k += kLine) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kLine; i += V::kWidth)
        step(k + i, AllLanes{});
    }
  }

  void prefetch(int64_t element) const {
    const auto address = reinterpret_cast<uintptr_t>(weight + element);
    __builtin_prefetch(reinterpret_cast<const void*>(address));
  }

  /// out[c, r] = x[c] * weight[r]
  void multiply(float* out, int64_t cols) {
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        sums[r][c] = V::zero();
    }
    const int64_t whole = depth / kLine * kLine;
    const int64_t quiet = std::max<int64_t>(0, whole - ahead / 64 * kLine);
    lines(0, quiet);
    for (int64_t k = quiet; k < whole; k += kLine) {
      for (int r = 0; r < R; ++r)
        prefetch((R + r) * depth + k - quiet);
      lines(k, k + kLine);
    }
    int64_t k = whole;
    for (; k + V::kWidth <= depth; k += V::kWidth)
      step(k, AllLanes{});
    if (k < depth) step(k, FirstLanes{depth - k});
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c)
        out[c * cols + r] = sum(sums[r][c]);
    }
  }
};

/// Columns [n, n + R) of rows [t, t + C).
template <typename V, typename W, int R, int C>
void multiply_rows_tile(const MatmulJob& job, int64_t col_end, int64_t n, int64_t t) {
  const int64_t row_bytes = job.depth * int64_t{sizeof(W)};
  RowsTile<V, W, R, C> tile;
  tile.weight = static_cast<const W*>(job.weight) + n * job.depth;
  tile.x = static_cast<const float*>(job.x) + t * job.depth;
  tile.depth = job.depth;
  tile.ahead = 0;
  if (n + 2 * R <= col_end && t + C == job.rows) {
    tile.ahead = job.rows > kMaxTile<V> ? row_bytes : std::min(row_bytes, kHeadBytes);
  }
  tile.multiply(static_cast<float*>(job.out) + t * job.cols + n, job.cols);
}

/// Columns [n, n + R) of all rows, in tiles of about equal height.
template <typename V, typename W, int R>
void multiply_rows_block(const MatmulJob& job, int64_t col_end, int64_t n) {
  const int64_t tiles = (job.rows + kMaxTile<V> - 1) / kMaxTile<V>;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t t = job.rows * i / tiles;
    switch (job.rows * (i + 1) / tiles - t) {
      case 1:
        multiply_rows_tile<V, W, R, 1>(job, col_end, n, t);
        break;
      case 2:
        multiply_rows_tile<V, W, R, 2>(job, col_end, n, t);
        break;
      case 3:
        multiply_rows_tile<V, W, R, 3>(job, col_end, n, t);
        break;
      case 4:
        multiply_rows_tile<V, W, R, 4>(job, col_end, n, t);
        break;
      case 5:
        if constexpr (kMaxTile<V> >= 5) multiply_rows_tile<V, W, R, 5>(job, col_end, n, t);
        break;
      default:
        if constexpr (kMaxTile<V> >= 6) multiply_rows_tile<V, W, R, 6>(job, col_end, n, t);
    }
  }
}

template <typename V, typename W, int R>
void multiply_rows_blocks(const MatmulJob& job, const MatmulPart& part) {
  int64_t n = part.col_begin;
  for (; n + R <= part.col_end; n += R)
    multiply_rows_block<V, W, R>(job, part.col_end, n);
  for (; n < part.col_end; ++n)
    multiply_rows_block<V, W, 1>(job, part.col_end, n);
}

/// All rows of the part's columns. Weight rows are read side by side: several streams keep more
/// requests to memory on their way than one, and with one row of x their sums hide the latency of
/// the addition.
template <typename V>
void multiply_rows(const MatmulJob& job, const MatmulPart& part) {
  with_float_type(job.weight_type, [&]<typename W>(TypeTag<W>) {
    if (job.rows == 1) {
      multiply_rows_blocks<V, W, 8>(job, part);
    } else if (V::kWidth == 16 || job.rows <= 3) {
      multiply_rows_blocks<V, W, 4>(job, part);
    } else {
      multiply_rows_blocks<V, W, 3>(job, part);
    }
  });
  finish<V>(job, part);
}

}  // namespace millrace::ops
