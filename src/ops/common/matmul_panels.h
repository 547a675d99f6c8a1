// Many rows of x: blocks of the weight are widened and transposed once into panels that stay in the
// core's cache, and used for all rows. A tile of outputs keeps its sums in registers.
//
// A cell is four bytes of K: one float, or two bf16 whose products are added in one instruction.
// Sums run over the cells of a block in order and blocks are added in order, so that an output's
// bits depend on K only. V: ops/common/vec_avx2.h, vec_avx512.h.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "ops/common/matmul_epilogue.h"
#include "ops/common/matmul_kernels.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

// A panel of this many cells (24 KiB with AVX2) lives in the first-level cache.
inline constexpr int64_t kBlockCells = PanelsKernel::kRowBytes / 4;

/// The sizes that follow from the registers of V.
template <typename V>
struct PanelSizes {
  static constexpr int kTileRows = V::kWidth == 16 ? 14 : 6;
  static constexpr int64_t kPanelCols = 2 * V::kWidth;
  // Panels (96 KiB with AVX2), rows of x (189 KiB) and sums (128 KiB) that fit a second-level
  // cache together.
  static constexpr int64_t kColBlock = 4 * kPanelCols;
  static constexpr int64_t kRowTiles = 126 / kTileRows;
};

/// Cells of one float, from weights of type W.
template <typename Vector, typename W>
struct FloatCells {
  using V = Vector;
  using Element = W;
  static constexpr int kDepth = 1;
  static __m256 load(const W* p) { return avx2::Vec::load(p).v; }
  static __m256 load_first(const W* p, int64_t count) { return avx2::Vec::load(p, count).v; }
  static V multiply(V x, V w, V sum) { return fma(x, w, sum); }
};

/// One block of K.
struct DepthBlock {
  int64_t index;
  int64_t begin;   // element of K
  int64_t length;  // elements
  int64_t cells;
};

/// Eight rows of the weight by eight cells of it.
template <typename Cells>
struct Square {
  __m256 row[8];

  /// `rest` elements are left from `weight` on, and `cols` rows: zeros where there are none.
  void load(const typename Cells::Element* weight, int64_t depth, int64_t cols, int64_t rest) {
    for (int i = 0; i < 8; ++i) {
      if (i >= cols) {
        row[i] = _mm256_setzero_ps();
      } else if (rest >= 8 * Cells::kDepth) {
        row[i] = Cells::load(weight + i * depth);
      } else {
        row[i] = Cells::load_first(weight + i * depth, rest);
      }
    }
  }

  void transpose() {
    __m256 pairs[8], quads[8];
    for (int i = 0; i < 8; i += 2) {
      pairs[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
      pairs[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
      quads[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
      quads[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
      quads[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
      quads[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
    }
    for (int i = 0; i < 4; ++i) {
      row[i] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x20);
      row[i + 4] = _mm256_permute2f128_ps(quads[i], quads[i + 4], 0x31);
    }
  }
};

/// panel[cell, col] = weight[n + col, cell]; zeros behind the last column.
template <typename Cells>
void pack_panel(const MatmulJob& job, int64_t n, const DepthBlock& block, float* panel) {
  constexpr int64_t kPanelCols = PanelSizes<typename Cells::V>::kPanelCols;
  const auto* weight = static_cast<const typename Cells::Element*>(job.weight) + block.begin;
  for (int64_t group = 0; group < kPanelCols; group += 8) {
    const int64_t cols = std::clamp<int64_t>(job.cols - n - group, 0, 8);
    for (int64_t cell = 0; cell < block.cells; cell += 8) {
      const int64_t at = cell * Cells::kDepth;
      const auto* here = weight + (n + group) * job.depth + at;
      if (at * int64_t{sizeof(*here)} % 64 == 0) {
        // The next block's part of these rows: the multiplication leaves time to bring it.
        for (int64_t i = 0; i < cols; ++i)
          __builtin_prefetch(here + i * job.depth + kBlockCells * Cells::kDepth, 0, 2);
      }
      Square<Cells> square;
      square.load(here, job.depth, cols, block.length - at);
      square.transpose();
      for (int64_t i = 0; i < std::min<int64_t>(8, block.cells - cell); ++i)
        _mm256_storeu_ps(panel + (cell + i) * kPanelCols + group, square.row[i]);
    }
  }
}

/// sums[row, col] (+)= x[row] * panel[col] for M rows and the columns of one panel. The sums' rows
/// are kColBlock apart. `add`: to what is there, as every block of K but the first does.
template <typename Cells, int M>
void multiply_panels_tile(const float* x, const float* panel, int64_t cells, float* sums,
                          bool add) {
  using V = typename Cells::V;
  using Sizes = PanelSizes<V>;
  V low[M], high[M];
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m) {
    __builtin_prefetch(sums + m * Sizes::kColBlock);
    low[m] = high[m] = V::zero();
  }
  for (int64_t cell = 0; cell < cells; ++cell) {
    if (cell % 16 == 0) {
#pragma GCC unroll 14
      for (int m = 0; m < M; ++m)  // the next tile's lines
        __builtin_prefetch(x + (M + m) * kBlockCells + cell);
    }
    const V w_low = V::load(panel + cell * Sizes::kPanelCols);
    const V w_high = V::load(panel + cell * Sizes::kPanelCols + V::kWidth);
#pragma GCC unroll 14
    for (int m = 0; m < M; ++m) {
      const V value = V::set(x[m * kBlockCells + cell]);
      low[m] = Cells::multiply(value, w_low, low[m]);
      high[m] = Cells::multiply(value, w_high, high[m]);
    }
  }
#pragma GCC unroll 14
  for (int m = 0; m < M; ++m) {
    float* p = sums + m * Sizes::kColBlock;
    if (add) {
      low[m] = V::load(p) + low[m];
      high[m] = V::load(p + V::kWidth) + high[m];
    }
    low[m].store(p);
    high[m].store(p + V::kWidth);
  }
}

using TileFunction = void (*)(const float* x, const float* panel, int64_t cells, float* sums,
                              bool add);

/// multiply_panels_tile for 1, 2, ... rows.
template <typename Cells, int... M>
constexpr std::array<TileFunction, sizeof...(M)> tile_functions(
    std::integer_sequence<int, M...> /*heights*/) {
  return {multiply_panels_tile<Cells, M + 1>...};
}

/// One block of K for the columns of `part`, at most kColBlock. sums: [rows, kColBlock].
template <typename Cells>
void multiply_panels_block(const MatmulJob& job, const MatmulPart& part, const DepthBlock& block,
                           const float* packed, float* sums) {
  using Sizes = PanelSizes<typename Cells::V>;
  static constexpr auto kTile =
      tile_functions<Cells>(std::make_integer_sequence<int, Sizes::kTileRows>());
  alignas(64) float panels[Sizes::kColBlock * kBlockCells];
  const int64_t cols = part.col_end - part.col_begin;
  for (int64_t col = 0; col < cols; col += Sizes::kPanelCols)
    pack_panel<Cells>(job, part.col_begin + col, block, panels + col * kBlockCells);

  const int64_t rows = part.row_end - part.row_begin;
  const int64_t tiles = (rows + Sizes::kTileRows - 1) / Sizes::kTileRows;
  const float* x = packed + (block.index * job.rows + part.row_begin) * kBlockCells;
  for (int64_t first = 0; first < tiles; first += Sizes::kRowTiles) {
    const int64_t end = std::min(tiles, first + Sizes::kRowTiles);
    for (int64_t col = 0; col < cols; col += Sizes::kPanelCols) {
      for (int64_t i = first; i < end; ++i) {  // tiles of about equal height
        const int64_t t = rows * i / tiles;
        kTile[static_cast<size_t>(rows * (i + 1) / tiles - t - 1)](
            x + t * kBlockCells, panels + col * kBlockCells, block.cells,
            sums + t * Sizes::kColBlock + col, block.index > 0);
      }
    }
  }
}

template <typename Cells>
void multiply_panels(const MatmulJob& job, const MatmulPart& part, const float* packed) {
  constexpr int64_t kColBlock = PanelSizes<typename Cells::V>::kColBlock;
  constexpr int64_t kDepthBlock = kBlockCells * Cells::kDepth;
  // Rows of out may lie a power of two apart, where they would share a few sets of each cache: it
  // is written once.
  alignas(64) float sums[PanelsKernel::kMaxRows * kColBlock];
  MatmulPart cols = part;
  for (; cols.col_begin < part.col_end; cols.col_begin += kColBlock) {
    cols.col_end = std::min(cols.col_begin + kColBlock, part.col_end);
    for (int64_t k = 0; k < job.depth; k += kDepthBlock) {
      const int64_t length = std::min(kDepthBlock, job.depth - k);
      const DepthBlock block{k / kDepthBlock, k, length,
                             (length + Cells::kDepth - 1) / Cells::kDepth};
      multiply_panels_block<Cells>(job, cols, block, packed, sums);
    }
    finish<typename Cells::V>(job, cols, sums, kColBlock);
  }
}

/// Copies rows [begin, end) of x into their places in every block of K.
template <typename V>
void pack_float_rows(const MatmulJob& job, int64_t begin, int64_t end, void* packed) {
  for (int64_t t = begin; t < end; ++t) {
    const float* x = static_cast<const float*>(job.x) + t * job.depth;
    float* to = static_cast<float*>(packed) + t * kBlockCells;
    for (int64_t k = 0; k < job.depth; k += kBlockCells, to += job.rows * kBlockCells) {
      for_vectors<V>(std::min(kBlockCells, job.depth - k), [&](int64_t i, auto lanes) {
        store(load<V>(x + k + i, lanes), to + i, lanes);
      });
    }
  }
}

template <typename V>
void multiply_float_panels(const MatmulJob& job, const MatmulPart& part, const void* packed) {
  with_float_type(job.weight_type, [&]<typename W>(TypeTag<W>) {
    multiply_panels<FloatCells<V, W>>(job, part, static_cast<const float*>(packed));
  });
}

template <typename V>
inline constexpr PanelsKernel kFloatPanels{.depth_block = kBlockCells,
                                           .col_block = PanelSizes<V>::kColBlock,
                                           .pack_x = pack_float_rows<V>,
                                           .multiply = multiply_float_panels<V>};

}  // namespace millrace::ops
