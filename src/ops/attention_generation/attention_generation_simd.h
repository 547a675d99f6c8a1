// attention_generation by vectors of type V. The rows of a unit pass over K and V together; K and V
// are widened in registers. Bound by reading the cache once where there are a few rows to a unit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

#include "base/thread_pool.h"
#include "ops/attention_generation/attention_generation_plan.h"
#include "ops/common/attention_rows.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

/// Computes pieces and joins them. T: the cache's type.
template <typename V, typename T>
class GenerationKernel {
 public:
  GenerationKernel(const Launch& launch, const GenerationPlan& plan)
      : plan_(plan),
        shape_(plan.shape()),
        sequences_(plan.sequences()),
        q_(launch.in[0].as<float>()),
        out_(launch.out[0].as<float>()) {}

  /// Partial results of all rows over one piece.
  void run_piece(const GenerationUnit& unit, int64_t piece) const {
    Tile tile(*this, unit, unit.slot + piece * unit.rows);
    const int64_t begin = std::min(piece * unit.piece_keys, unit.keys);
    const int64_t end = std::min(begin + unit.piece_keys, unit.keys);
    tile.run(begin, end);
  }

  /// Adds up the pieces of a unit, in their order, and writes its rows.
  void join_pieces(const GenerationUnit& unit) const {
    const int64_t size = shape_.v_head_size;
    for (int32_t r = 0; r < unit.rows; ++r) {
      float largest = -INFINITY;
      for (int64_t piece = 0; piece < unit.pieces; ++piece)
        largest = std::max(largest, tail(unit, piece, r)[kLargest]);
      float* out = out_ + out_row(unit, r) * size;
      float weights[kMaxPieces];
      float total = 0;
      if (shape_.sink_logits) {
        const float sink = plan_.tables().sink(head(unit, r));
        largest = std::max(largest, sink);
        total = exp_of(sink - largest);
      }
      for (int64_t piece = 0; piece < unit.pieces; ++piece) {
        const float* end = tail(unit, piece, r);
        weights[piece] = exp_of(end[kLargest] - largest);
        total += weights[piece] * end[kTotal];
      }
      for_vectors<V>(size, [&](int64_t i, auto lanes) {
        V sum = V::zero();
        for (int64_t piece = 0; piece < unit.pieces; ++piece) {
          const float* partial = plan_.partial(unit.slot + piece * unit.rows + r);
          sum = fma(V::set(weights[piece]), V::load(partial + i), sum);
        }
        store(sum / V::set(total), out + i, lanes);
      });
    }
  }

 private:
  static constexpr int64_t kTileKeys = 64;  // their K, or V, stays in the first-level cache
  static constexpr int64_t kLineElements = 64 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kLargest = 0, kTotal = 1;

  static float exp_of(float x) {
    float lanes[V::kWidth];
    vec_exp(V::set(x)).store(lanes);
    return lanes[0];
  }

  /// The last line of a partial result.
  float* tail(const GenerationUnit& unit, int64_t piece, int64_t row) const {
    return plan_.partial(unit.slot + piece * unit.rows + row + 1) - 16;
  }
  int64_t token(const GenerationUnit& unit, int64_t r) const {
    return (unit.first_row + r) / shape_.group();
  }
  int64_t head(const GenerationUnit& unit, int64_t r) const {
    return int64_t{unit.kv_head} * shape_.group() + (unit.first_row + r) % shape_.group();
  }
  /// (row of the step) * H + head.
  int64_t out_row(const GenerationUnit& unit, int64_t r) const {
    const int64_t row = sequences_.query_start[unit.sequence] + token(unit, r);
    return row * shape_.heads + head(unit, r);
  }

  /// Where keys and values are. Behind the last one stands the last one again.
  struct KeyList {
    int64_t count = 0;
    const T* k[kTileKeys];
    const T* v[kTileKeys];
    float k_scale[kTileKeys];  // where T has some
    float v_scale[kTileKeys];
  };

  /// The rows of a unit over kTileKeys keys at a time. Memory is kept busy while it computes:
  /// values are fetched during the products with their keys, the next keys during those with the
  /// values.
  class Tile {
   public:
    Tile(const GenerationKernel& kernel, const GenerationUnit& unit, int64_t slot)
        : kernel_(kernel),
          unit_(unit),
          keys_(kernel.sequences_, unit.sequence, unit.kv_head),
          k_size_(kernel.shape_.head_size),
          v_size_(kernel.shape_.v_head_size) {
      for (int32_t r = 0; r < unit.rows; ++r) {
        q_[r] = kernel.q_ + kernel.out_row(unit, r) * k_size_;
        sums_[r] = kernel.plan_.partial(slot + r);
        std::fill_n(sums_[r], kernel.plan_.slot_floats(), 0.0F);
        largest_[r] = -INFINITY;
        total_[r] = 0;
      }
    }

    /// Keys [begin, end) of those that the unit sees.
    void run(int64_t begin, int64_t end) {
      find_keys(begin, end, now_);
      for (int64_t j = 0; j < now_->count; ++j) {
        for (int64_t d = 0; d < k_size_; d += kLineElements)
          __builtin_prefetch(now_->k[j] + d);
      }
      for (int64_t key = begin; key < end; key += kTileKeys) {
        find_keys(key + kTileKeys, end, next_);
        add_tile(key);
        std::swap(now_, next_);
      }
      finish();
    }

   private:
    void add_tile(int64_t key) {
      for (int32_t r = 0; r < unit_.rows;) {
        const int32_t left = unit_.rows - r;
        if (left >= 3) {  // of three, one is computed twice
          r += score<4>(r);
        } else if (left == 2) {
          r += score<2>(r);
        } else {
          r += score<1>(r);
        }
      }
      if constexpr (kHasScale<T>) scale_rows(now_->k_scale);
      if (!kernel_.plain_) bend_logits(key, now_->count);
      hide_keys(key, now_->count);
      for (int32_t r = 0; r < unit_.rows; ++r)
        exponentiate(r, now_->count);
      if constexpr (kHasScale<T>) scale_rows(now_->v_scale);
      for (int32_t r = 0; r < unit_.rows;) {
        const int32_t left = unit_.rows - r;
        if (left >= 3) {
          r += add_values<4>(r);
        } else if (left == 2) {
          r += add_values<2>(r);
        } else {
          r += add_values<1>(r);
        }
      }
    }

    void finish() {
      for (int32_t r = 0; r < unit_.rows; ++r) {
        float* end = sums_[r] + kernel_.plan_.slot_floats() - 16;
        end[kLargest] = largest_[r];
        end[kTotal] = total_[r];
      }
    }

    /// Up to kTileKeys keys from `key` on.
    void find_keys(int64_t key, int64_t end, KeyList* list) {
      list->count = std::clamp<int64_t>(end - key, 0, kTileKeys);
      int64_t done = 0;
      const auto take = [&](int64_t position, int64_t run) {
        keys_.for_each(position, run, [&](int64_t i, const KeySlot<T>& slot) {
          list->k[done + i] = slot.k;
          list->v[done + i] = slot.v;
          if constexpr (kHasScale<T>) {
            list->k_scale[done + i] = *slot.k_scale;
            list->v_scale[done + i] = *slot.v_scale;
          }
        });
        done += run;
      };
      if (key < unit_.sinks) take(key, std::min(unit_.sinks - key, list->count));
      if (done < list->count) take(position_of(key + done), list->count - done);
      std::fill(list->k + done, list->k + kTileKeys, done > 0 ? list->k[done - 1] : now_->k[0]);
      std::fill(list->v + done, list->v + kTileKeys, done > 0 ? list->v[done - 1] : now_->v[0]);
    }
    int64_t position_of(int64_t key) const {
      return key < unit_.sinks ? key : key - unit_.sinks + unit_.window_begin;
    }

    /// Logits of R rows, in sums of 8 (row, key) pairs at a time. Returns how many rows.
    template <int R>
    int32_t score(int32_t row) {
      constexpr int64_t kKeys = 8 / R;
      const int32_t rows = std::min(R, unit_.rows - row);
      const float* q[R];
      for (int r = 0; r < R; ++r)
        q[r] = q_[row + std::min(r, rows - 1)];
      const float scale = kernel_.shape_.scale;
      for (int64_t j = 0; j < now_->count; j += kKeys) {
        const T* k[kKeys];
        for (int64_t i = 0; i < kKeys; ++i)
          k[i] = now_->k[j + i];
        if (row == 0) fetch_values(j, kKeys);
        V sums[8];
        dot_rows<R>(q, k, sums);
        float logits[8];
        V::store_sums(sums, logits);
        for (int r = 0; r < rows; ++r) {
          for (int64_t i = 0; i < kKeys; ++i)
            p_[row + r][j + i] = logits[r * kKeys + i] * scale;
        }
      }
      return rows;
    }

    void fetch_values(int64_t first, int64_t count) const {
      for (int64_t j = first; j < first + count; ++j) {
        for (int64_t d = 0; d < v_size_; d += kLineElements)
          __builtin_prefetch(now_->v[j] + d);
      }
    }

    template <int R>
    void dot_rows(const float* const (&q)[R], const T* const (&k)[8 / R], V (&sums)[8]) const {
      constexpr int kKeys = 8 / R;
      for (V& sum : sums)
        sum = V::zero();
      for_vectors<V>(k_size_, [&](int64_t d, auto lanes) {
        V keys[kKeys];
        for (int i = 0; i < kKeys; ++i)
          keys[i] = load<V>(k[i] + d, lanes);
        for (int r = 0; r < R; ++r) {
          const V query = load<V>(q[r] + d, lanes);
          for (int i = 0; i < kKeys; ++i)
            sums[r * kKeys + i] = fma(query, keys[i], sums[r * kKeys + i]);
        }
      });
    }

    void scale_rows(const float* scales) {
      for (int32_t r = 0; r < unit_.rows; ++r) {
        for (int64_t j = 0; j < now_->count; ++j)
          p_[r][j] *= scales[j];
      }
    }

    /// Soft cap and position biases.
    void bend_logits(int64_t key, int64_t count) {
      const AttentionShape& shape = kernel_.shape_;
      const int64_t first = kernel_.sequences_.first_position(unit_.sequence);
      for (int32_t r = 0; r < unit_.rows; ++r) {
        if (shape.softcap > 0) cap_logits<V>(shape.softcap, count, p_[r]);
        if (shape.alibi_max_bias == 0 && shape.relative_buckets == 0) continue;
        const int64_t head = kernel_.head(unit_, r), position = first + kernel_.token(unit_, r);
        for (int64_t j = 0; j < count && position_of(key + j) <= position; ++j)
          p_[r][j] += kernel_.plan_.tables().bias(head, position, position_of(key + j));
      }
    }

    /// Where tokens of a unit do not all see the same keys, and behind the last key.
    void hide_keys(int64_t key, int64_t count) {
      const int64_t first = kernel_.sequences_.first_position(unit_.sequence);
      const bool one_token = kernel_.token(unit_, 0) == kernel_.token(unit_, unit_.rows - 1);
      for (int32_t r = 0; r < unit_.rows; ++r) {
        const int64_t position = first + kernel_.token(unit_, r);
        const int64_t window_begin = kernel_.shape_.window_begin(position);
        for (int64_t j = 0; j < count && !one_token; ++j) {
          const int64_t at = position_of(key + j);
          const bool in_window = at >= window_begin || at < kernel_.shape_.sink_tokens;
          if (at > position || !in_window) p_[r][j] = -INFINITY;
        }
        std::fill(p_[r] + count, p_[r] + padded(count), -INFINITY);
      }
    }
    static int64_t padded(int64_t count) { return (count + V::kWidth - 1) / V::kWidth * V::kWidth; }

    /// Turns the logits of a row into exponentials, and scales down what it has by the change of
    /// its largest logit.
    void exponentiate(int32_t r, int64_t count) {
      float* p = p_[r];
      V tops = V::set(largest_[r]);
      for (int64_t j = 0; j < count; j += V::kWidth)
        tops = max(tops, V::load(p + j));
      const float top = largest(tops);
      const V shift = softmax_shift(V::set(top));
      V total = V::zero();
      for (int64_t j = 0; j < count; j += V::kWidth) {
        const V e = vec_exp(V::load(p + j) - shift);
        e.store(p + j);
        total = total + e;
      }
      const V correction = vec_exp(V::set(largest_[r]) - shift);
      for (int64_t d = 0; d < v_size_; d += V::kWidth)
        (V::load(sums_[r] + d) * correction).store(sums_[r] + d);
      float factor[V::kWidth];
      correction.store(factor);
      total_[r] = total_[r] * factor[0] + sum(total);
      largest_[r] = top;
    }

    /// Eight accumulators, for R rows and 8 / R vectors of columns. Returns how many rows.
    template <int R>
    int32_t add_values(int32_t row) {
      constexpr int kVectors = 8 / R;
      const int32_t rows = std::min(R, unit_.rows - row);
      const float* p[R];
      float* sums[R];
      float unused[kVectors * V::kWidth] = {};
      for (int r = 0; r < R; ++r)
        p[r] = p_[row + std::min(r, rows - 1)];
      int64_t d = 0;
      const auto columns = [&]<int N>(std::integral_constant<int, N>, auto lanes) {
        for (int r = 0; r < R; ++r)
          sums[r] = r < rows ? sums_[row + r] + d : unused;
        if (row == 0 && d % kLineElements == 0) {
          add_columns<R, N, true>(p, d, sums, lanes);
        } else {
          add_columns<R, N, false>(p, d, sums, lanes);
        }
        d += N * V::kWidth;
      };
      while (d + kVectors * V::kWidth <= v_size_)
        columns(std::integral_constant<int, kVectors>{}, AllLanes{});
      while (d + V::kWidth <= v_size_)
        columns(std::integral_constant<int, 1>{}, AllLanes{});
      if (d < v_size_) columns(std::integral_constant<int, 1>{}, FirstLanes{v_size_ - d});
      return rows;
    }

    /// sums[r][0..N) += p[r][j] v[j][d..]. `sums` is padded to whole vectors. kFetch: and fetches
    /// the same columns of the next keys.
    template <int R, int N, bool kFetch, typename Lanes>
    void add_columns(const float* const (&p)[R], int64_t d, float* const (&sums)[R],
                     Lanes lanes) const {
      V acc[R][N];
      for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n)
          acc[r][n] = V::load(sums[r] + n * V::kWidth);
      }
      for (int64_t j = 0; j < now_->count; ++j) {
        if constexpr (kFetch) {
          for (int64_t i = 0; i < N * V::kWidth; i += kLineElements)
            __builtin_prefetch(next_->k[j] + d + i);
        }
        V values[N];
        for (int n = 0; n < N; ++n)
          values[n] = load<V>(now_->v[j] + d + n * V::kWidth, lanes);
        for (int r = 0; r < R; ++r) {
          const V weight = V::set(p[r][j]);
          for (int n = 0; n < N; ++n)
            acc[r][n] = fma(weight, values[n], acc[r][n]);
        }
      }
      for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n)
          acc[r][n].store(sums[r] + n * V::kWidth);
      }
    }

    const GenerationKernel& kernel_;
    const GenerationUnit& unit_;
    HeadKeys<V, T> keys_;
    int64_t k_size_, v_size_;
    const float* q_[kMaxUnitRows];
    float* sums_[kMaxUnitRows];
    float largest_[kMaxUnitRows], total_[kMaxUnitRows];
    KeyList lists_[2] = {};
    KeyList* now_ = &lists_[0];
    KeyList* next_ = &lists_[1];
    alignas(64) float p_[kMaxUnitRows][kTileKeys];  // logits, then exponentials
  };

  const GenerationPlan& plan_;
  const AttentionShape& shape_;
  const SequenceRows& sequences_;
  const bool plain_ = shape_.has_plain_logits();
  const float* q_;
  float* out_;
};

template <typename V>
void attention_generation_simd(const Launch& launch) {
  constexpr double kWorthThreads = 100e3;  // multiplications: some ten microseconds
  GenerationPlan plan(launch);
  with_kv_type(plan.sequences().cache->dtype, [&]<typename T>(TypeTag<T>) {
    const GenerationKernel<V, T> kernel(launch, plan);
    GenerationWave wave;
    while (plan.next_wave(&wave)) {
      const auto piece = [&](int64_t i) {
        const GenerationTask& task = wave.tasks[static_cast<size_t>(i)];
        kernel.run_piece(wave.units[static_cast<size_t>(task.unit)], task.piece);
      };
      const auto join = [&](int64_t i) { kernel.join_pieces(wave.units[static_cast<size_t>(i)]); };
      const auto num_tasks = static_cast<int64_t>(wave.tasks.size());
      const auto num_units = static_cast<int64_t>(wave.units.size());
      if (wave.work < kWorthThreads) {
        for (int64_t i = 0; i < num_tasks; ++i)
          piece(i);
        for (int64_t i = 0; i < num_units; ++i)
          join(i);
      } else {
        launch.pool().parallel_for(num_tasks, piece);
        launch.pool().parallel_for(num_units, join);
      }
    }
  });
}

}  // namespace millrace::ops
