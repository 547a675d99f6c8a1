// attention_context by vectors of type V. Everything is transposed so that a vector holds the same
// thing for several query rows: with K [keys, D] and V [keys, Dv] of a tile widened to float,
//   S [keys, rows] = K Q^T,   P = exp(S - largest of each column),   O^T [Dv, rows] += V^T P,
// two products whose left factor is broadcast element by element, so nothing but Q is ever
// transposed, and softmax needs no sums across a vector. Bound by those products.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "base/thread_pool.h"
#include "ops/attention_context/attention_context_tiles.h"
#include "ops/common/attention_rows.h"
#include "ops/common/attention_tables.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

/// A block of a product in registers: kRows rows of 3 vectors.
template <typename V>
struct ProductBlock {
  static constexpr int kRows = V::kWidth == 8 ? 4 : 8;
  static constexpr int64_t kColumns = 3 * V::kWidth;
  V acc[kRows][3];

  void clear() {
    for (auto& row : acc) {
      for (V& v : row)
        v = V::zero();
    }
  }

  /// acc += A B, `steps` products per element in their order: A's element (r, i) is at
  /// a[r * a_row + i * a_step], B [steps, kColumns] has rows `b_row` floats apart.
  void add_product(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                   int64_t steps) {
    for (int64_t i = 0; i < steps; ++i, a += a_step, b += b_row) {
      const V b0 = V::load(b), b1 = V::load(b + V::kWidth), b2 = V::load(b + 2 * V::kWidth);
      for (int r = 0; r < kRows; ++r) {
        const V left = V::set(a[r * a_row]);
        acc[r][0] = fma(left, b0, acc[r][0]);
        acc[r][1] = fma(left, b1, acc[r][1]);
        acc[r][2] = fma(left, b2, acc[r][2]);
      }
    }
  }
};

/// One thread's work on one query tile after the other. T: the cache's type.
template <typename V, typename T>
class ContextKernel {
 public:
  ContextKernel(const Launch& launch, const AttentionShape& shape, const SequenceRows& sequences,
                const LogitTables& tables, float* workspace)
      : shape_(shape),
        sequences_(sequences),
        tables_(tables),
        q_rows_(launch.in[0].as<float>()),
        out_rows_(launch.out[0].as<float>()),
        v_padded_(ContextSizes(shape).v_padded),
        stride_(ContextSizes(shape).columns),
        q_(workspace),
        out_(q_ + shape.head_size * stride_),
        p_(out_ + v_padded_ * stride_),
        largest_(p_ + kKeyTile * stride_),
        total_(largest_ + stride_),
        slope_(total_ + stride_),
        position_(slope_ + stride_),
        k_(position_ + stride_),
        v_(k_ + kKeyTile * int64_t{16} * ((shape.head_size + 15) / 16)) {}

  void run(const QueryTile& tile) {
    tile_ = tile;
    columns_ =
        (tile.positions * shape_.group() + Block::kColumns - 1) / Block::kColumns * Block::kColumns;
    take_queries();
    std::fill_n(out_, v_padded_ * stride_, 0.0F);
    std::fill_n(largest_, columns_, -INFINITY);
    std::fill_n(total_, columns_, 0.0F);
    if (shape_.sink_logits) start_with_sinks();
    const HeadKeys<V, T> keys(sequences_, tile.sequence, tile.kv_head);
    const int64_t window_begin = shape_.window_begin(tile.first_position);
    for (int64_t first = 0; first <= last_position(); first += kKeyTile) {
      const bool has_sinks = first < shape_.sink_tokens;
      if (first + kKeyTile <= window_begin && !has_sinks) continue;
      take_keys(keys, first, window_begin);
      for (int64_t column = 0; column < columns_; column += Block::kColumns)
        add_tile(first, column);
    }
    write_rows();
  }

 private:
  using Block = ProductBlock<V>;

  int64_t last_position() const { return tile_.first_position + tile_.positions - 1; }
  const float* q_row(int64_t row) const { return q_rows_ + head_index(row) * shape_.head_size; }
  int64_t head_of(int64_t row) const {
    return tile_.kv_head * shape_.group() + row % shape_.group();
  }
  /// (row of the step) * H + head, of a row of the tile.
  int64_t head_index(int64_t row) const {
    return (tile_.first_row + row / shape_.group()) * shape_.heads + head_of(row);
  }

  /// Q^T [D, columns], zeros behind the rows.
  void take_queries() {
    const int64_t rows = tile_.positions * shape_.group();
    for (int64_t r = 0; r < columns_; ++r) {
      for (int64_t d = 0; d < shape_.head_size; ++d)
        q_[d * stride_ + r] = r < rows ? q_row(r)[d] : 0.0F;
      if (shape_.alibi_max_bias == 0) continue;
      slope_[r] = r < rows ? tables_.slope(head_of(r)) : 0.0F;
      position_[r] = static_cast<float>(tile_.first_position + r / shape_.group());
    }
  }

  /// The sink is what a row sees first: e^(sink - largest) = 1.
  void start_with_sinks() {
    for (int64_t r = 0; r < tile_.positions * shape_.group(); ++r) {
      largest_[r] = tables_.sink(head_of(r));
      total_[r] = 1;
    }
  }

  /// K and V at positions [first, first + kKeyTile) as floats. What no row of the tile sees may not
  /// be there, and is zero.
  void take_keys(const HeadKeys<V, T>& keys, int64_t first, int64_t window_begin) {
    num_keys_ = std::min(kKeyTile, last_position() + 1 - first);
    const int64_t sinks = std::clamp<int64_t>(shape_.sink_tokens - first, 0, num_keys_);
    const int64_t hidden = std::clamp<int64_t>(window_begin - first, sinks, num_keys_);
    const int64_t padded = (num_keys_ + Block::kRows - 1) / Block::kRows * Block::kRows;
    const auto widen_run = [&](int64_t begin, int64_t end) {
      keys.for_each(first + begin, end - begin, [&](int64_t i, const KeySlot<T>& slot) {
        copy(slot.k, slot.k_scale, shape_.head_size, k_ + (begin + i) * shape_.head_size);
        copy(slot.v, slot.v_scale, shape_.v_head_size, v_ + (begin + i) * v_padded_);
        for (int64_t d = shape_.v_head_size; d < v_padded_; ++d)
          v_[(begin + i) * v_padded_ + d] = 0;
      });
    };
    widen_run(0, sinks);
    std::fill_n(k_ + sinks * shape_.head_size, (hidden - sinks) * shape_.head_size, 0.0F);
    std::fill_n(v_ + sinks * v_padded_, (hidden - sinks) * v_padded_, 0.0F);
    widen_run(hidden, num_keys_);
    std::fill_n(k_ + num_keys_ * shape_.head_size, (padded - num_keys_) * shape_.head_size, 0.0F);
  }
  static void copy(const T* from, const float* scale, int64_t count, float* to) {
    for_vectors<V>(count, [&](int64_t i, auto lanes) {
      V x = load<V>(from + i, lanes);
      if constexpr (kHasScale<T>) x = x * V::set(*scale);
      store(x, to + i, lanes);
    });
  }

  /// One tile of keys for one block of columns.
  void add_tile(int64_t first, int64_t column) {
    const int64_t last_row =
        std::min(column + Block::kColumns, tile_.positions * shape_.group()) - 1;
    const int64_t last_seen = tile_.first_position + last_row / shape_.group();
    const int64_t keys = std::min(num_keys_, last_seen + 1 - first);
    if (keys <= 0) return;
    multiply_keys(column, keys);
    if (!plain_) bend_logits(first, column, keys);
    hide_keys(first, column, keys);
    V corrections[3];
    for (int n = 0; n < 3; ++n)
      corrections[n] = exponentiate(column + n * V::kWidth, keys);
    multiply_values(column, keys, corrections);
  }

  void multiply_keys(int64_t column, int64_t keys) {
    const V scale = V::set(shape_.scale);
    for (int64_t j = 0; j < keys; j += Block::kRows) {
      Block block;
      block.clear();
      block.add_product(k_ + j * shape_.head_size, shape_.head_size, 1, q_ + column, stride_,
                        shape_.head_size);
      for (int r = 0; r < Block::kRows; ++r) {
        for (int n = 0; n < 3; ++n)
          (block.acc[r][n] * scale).store(p_ + (j + r) * stride_ + column + n * V::kWidth);
      }
    }
  }

  /// Soft cap and position biases.
  void bend_logits(int64_t first, int64_t column, int64_t keys) {
    for (int64_t j = 0; j < keys && shape_.softcap > 0; ++j)
      cap_logits<V>(shape_.softcap, Block::kColumns, p_ + j * stride_ + column);
    if (shape_.relative_buckets > 0 || shape_.alibi_bf16) {
      add_biases(first, column, keys);
    } else if (shape_.alibi_max_bias > 0) {
      add_slopes(first, column, keys);
    }
  }

  void add_biases(int64_t first, int64_t column, int64_t keys) {
    const int64_t end = std::min(column + Block::kColumns, tile_.positions * shape_.group());
    for (int64_t r = column; r < end; ++r) {
      const int64_t head = head_of(r), position = tile_.first_position + r / shape_.group();
      for (int64_t j = 0; j < keys && first + j <= position; ++j)
        p_[j * stride_ + r] += tables_.bias(head, position, first + j);
    }
  }

  void add_slopes(int64_t first, int64_t column, int64_t keys) {
    for (int64_t j = 0; j < keys; ++j) {
      const V position = V::set(static_cast<float>(first + j));
      for (int n = 0; n < 3; ++n) {
        const int64_t c = column + n * V::kWidth;
        float* logits = p_ + j * stride_ + c;
        fma(V::load(slope_ + c), position - V::load(position_ + c), V::load(logits)).store(logits);
      }
    }
  }

  /// A key is seen by rows of its own position and later ones, and with a window not by those too
  /// far behind it: by a range of columns.
  void hide_keys(int64_t first, int64_t column, int64_t keys) {
    const int64_t group = shape_.group();
    const int64_t begin = column, end = column + Block::kColumns;
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t position = first + j;
      float* logits = p_ + j * stride_;
      const int64_t seen_from = (position - tile_.first_position) * group;
      if (seen_from > begin)
        std::fill(logits + begin, logits + std::min(seen_from, end), -INFINITY);
      if (shape_.window == 0 || position < shape_.sink_tokens) continue;
      const int64_t seen_to = std::max(seen_from + shape_.window * group, begin);
      if (seen_to < end) std::fill(logits + seen_to, logits + end, -INFINITY);
    }
  }

  /// Softmax so far of one vector of columns. Returns what earlier sums are to be scaled by.
  V exponentiate(int64_t column, int64_t keys) {
    float* logits = p_ + column;
    const V before = V::load(largest_ + column);
    V top = before;
    for (int64_t j = 0; j < keys; ++j)
      top = max(top, V::load(logits + j * stride_));
    const V shift = softmax_shift(top);
    V total = V::zero();
    for (int64_t j = 0; j < keys; ++j) {
      const V p = vec_exp(V::load(logits + j * stride_) - shift);
      p.store(logits + j * stride_);
      total = total + p;
    }
    const V correction = vec_exp(before - shift);
    fma(V::load(total_ + column), correction, total).store(total_ + column);
    top.store(largest_ + column);
    return correction;
  }

  void multiply_values(int64_t column, int64_t keys, const V (&corrections)[3]) {
    for (int64_t d = 0; d < v_padded_; d += Block::kRows) {
      Block block;
      for (int r = 0; r < Block::kRows; ++r) {
        for (int n = 0; n < 3; ++n) {
          const float* sums = out_ + (d + r) * stride_ + column + n * V::kWidth;
          block.acc[r][n] = V::load(sums) * corrections[n];
        }
      }
      block.add_product(v_ + d, 1, v_padded_, p_ + column, stride_, keys);
      for (int r = 0; r < Block::kRows; ++r) {
        for (int n = 0; n < 3; ++n)
          block.acc[r][n].store(out_ + (d + r) * stride_ + column + n * V::kWidth);
      }
    }
  }

  void write_rows() {
    for (int64_t column = 0; column < columns_; column += V::kWidth) {
      const V total = V::load(total_ + column);
      for (int64_t d = 0; d < shape_.v_head_size; ++d) {
        float* sums = out_ + d * stride_ + column;
        (V::load(sums) / total).store(sums);
      }
    }
    for (int64_t r = 0; r < tile_.positions * shape_.group(); ++r) {
      float* row = out_rows_ + head_index(r) * shape_.v_head_size;
      for (int64_t d = 0; d < shape_.v_head_size; ++d)
        row[d] = out_[d * stride_ + r];
    }
  }

  const AttentionShape& shape_;
  const SequenceRows& sequences_;
  const LogitTables& tables_;
  const bool plain_ = shape_.has_plain_logits();
  const float* q_rows_;
  float* out_rows_;
  int64_t v_padded_, stride_;
  float* q_;                  // [D, stride]
  float* out_;                // [v_padded, stride]
  float* p_;                  // [kKeyTile, stride]
  float *largest_, *total_;   // [stride]
  float *slope_, *position_;  // [stride], with ALiBi
  float* k_;                  // [kKeyTile, D]
  float* v_;                  // [kKeyTile, v_padded]
  QueryTile tile_;
  int64_t columns_ = 0;   // in use
  int64_t num_keys_ = 0;  // of the present tile
};

template <typename V>
void attention_context_simd(const Launch& launch) {
  constexpr double kWorthThreads = 100e3;  // multiplications: some ten microseconds
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionContext>());
  const SequenceRows sequences(launch.in, 1);
  const ContextTiles tiles(sequences, shape);
  const ContextSizes sizes(shape);
  const LogitTables tables(
      launch, shape,
      static_cast<float*>(launch.workspace) + launch.pool().thread_count() * sizes.floats);
  std::atomic<int64_t> next{0};
  const auto work = [&](int thread, int) {
    with_kv_type(sequences.cache->dtype, [&]<typename T>(TypeTag<T>) {
      float* workspace = static_cast<float*>(launch.workspace) + thread * sizes.floats;
      ContextKernel<V, T> kernel(launch, shape, sequences, tables, workspace);
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < tiles.count();)
        kernel.run(tiles.at(i));
    });
  };
  if (tiles.count() <= 1 || tiles.work() < kWorthThreads) {
    work(0, 1);
  } else {
    launch.pool().run(work);
  }
}

}  // namespace millrace::ops
