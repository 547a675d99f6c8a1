// Attention over all keys by vectors of type V: up to kQueryRows queries of one head share each
// load of a key or value. A row's bits do not depend on the rows it shares a tile with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/thread_pool.h"
#include "ops/common/attention_rows.h"
#include "ops/common/full_attention.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

inline constexpr int kQueryRows = 4;

/// Queries of one head. `bias` + j is what the first query's logit of key j gets; that of query r
/// gets bias[j - r] (it follows from the distance). Null: none.
struct FullQueries {
  const float* q = nullptr;
  float* out = nullptr;
  int64_t q_stride = 0, out_stride = 0;  // floats from one query to the next
  const float* bias = nullptr;
};

/// T: the keys' type, kRows: queries taken together.
template <typename V, typename T, int kRows>
class FullKernel {
 public:
  FullKernel(const FullAttention& shape, const FullQueries& queries)
      : shape_(shape), queries_(queries) {}

  /// keys [0, count), count >= 1.
  template <typename Keys>
  void run(const Keys& keys, int64_t count) {
    for (int r = 0; r < kRows; ++r)
      std::fill_n(out(r), shape_.v_head_size, 0.0F);
    std::fill_n(largest_, kRows, -INFINITY);
    std::fill_n(total_, kRows, 0.0F);
    for (int64_t first = 0; first < count; first += kKeys) {
      const int64_t n = std::min(kKeys, count - first);
      keys.for_each(first, n, [&](int64_t i, const T* k, const T* v) {
        v_[i] = v;
        multiply_key(i, k);
      });
      for (int r = 0; r < kRows; ++r)
        corrections_[r] = exponentiate(r, first, n);
      for_vectors<V>(shape_.v_head_size,
                     [&](int64_t d, auto lanes) { multiply_values(d, lanes, n); });
    }
    for (int r = 0; r < kRows; ++r)
      divide(r);
  }

 private:
  static constexpr int64_t kKeys = 64;  // of a tile; a multiple of any vector

  float* out(int r) const { return queries_.out + r * queries_.out_stride; }

  void multiply_key(int64_t i, const T* k) {
    V sums[kRows];
    for (V& sum : sums)
      sum = V::zero();
    for_vectors<V>(shape_.head_size, [&](int64_t d, auto lanes) {
      const V key = load<V>(k + d, lanes);
      for (int r = 0; r < kRows; ++r)
        sums[r] = fma(load<V>(queries_.q + r * queries_.q_stride + d, lanes), key, sums[r]);
    });
    for (int r = 0; r < kRows; ++r)
      p_[r][i] = shape_.scale * sum(sums[r]);
  }

  /// Softmax so far of one query. Returns what earlier sums are to be scaled by.
  float exponentiate(int r, int64_t first, int64_t n) {
    float* p = p_[r];
    if (queries_.bias != nullptr) {
      const float* bias = queries_.bias + first - r;
      for (int64_t i = 0; i < n; ++i)
        p[i] += bias[i];
    }
    std::fill(p + n, p + kKeys, -INFINITY);
    V top = V::set(largest_[r]);
    for (int64_t i = 0; i < n; i += V::kWidth)
      top = max(top, V::load(p + i));
    const float before = largest_[r];
    largest_[r] = largest(top);
    const V shift = softmax_shift(V::set(largest_[r]));
    V total = V::zero();
    for (int64_t i = 0; i < n; i += V::kWidth) {
      const V e = vec_exp(V::load(p + i) - shift);
      e.store(p + i);
      total = total + e;
    }
    const float correction = std::exp(before - largest_[r]);
    total_[r] = total_[r] * correction + sum(total);
    return correction;
  }

  template <typename Lanes>
  void multiply_values(int64_t d, Lanes lanes, int64_t n) {
    V sums[kRows];
    for (int r = 0; r < kRows; ++r)
      sums[r] = load<V>(out(r) + d, lanes) * V::set(corrections_[r]);
    for (int64_t i = 0; i < n; ++i) {
      const V value = load<V>(v_[i] + d, lanes);
      for (int r = 0; r < kRows; ++r)
        sums[r] = fma(V::set(p_[r][i]), value, sums[r]);
    }
    for (int r = 0; r < kRows; ++r)
      store(sums[r], out(r) + d, lanes);
  }

  void divide(int r) {
    const V total = V::set(total_[r]);
    for_vectors<V>(shape_.v_head_size, [&](int64_t d, auto lanes) {
      store(load<V>(out(r) + d, lanes) / total, out(r) + d, lanes);
    });
  }

  const FullAttention& shape_;
  FullQueries queries_;
  const T* v_[kKeys];
  float p_[kRows][kKeys];
  float largest_[kRows], total_[kRows], corrections_[kRows];
};

/// One tile of queries.
template <typename V, typename T, typename Keys>
void attend_all(const FullAttention& shape, FullQueries queries, int64_t rows, const Keys& keys,
                int64_t count) {
  if (rows == kQueryRows) {
    FullKernel<V, T, kQueryRows>(shape, queries).run(keys, count);
    return;
  }
  for (int64_t r = 0; r < rows; ++r) {
    FullKernel<V, T, 1>(shape, queries).run(keys, count);
    queries.q += queries.q_stride;
    queries.out += queries.out_stride;
    if (queries.bias != nullptr) --queries.bias;
  }
}

/// Calls run(tile) for all tiles, on the pool's threads where the `multiplications` of all are
/// worth it.
template <typename Run>
void run_tiles(const Launch& launch, const RowTiles& tiles, double multiplications,
               const Run& run) {
  constexpr double kWorthThreads = 100e3;  // some ten microseconds
  if (multiplications >= kWorthThreads) {
    launch.pool().parallel_for(tiles.count(), [&](int64_t task) { run(tiles.at(task)); });
    return;
  }
  for (int64_t task = 0; task < tiles.count(); ++task)
    run(tiles.at(task));
}

}  // namespace millrace::ops
