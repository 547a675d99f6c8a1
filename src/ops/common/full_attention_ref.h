// The reference of attention over all keys: one query and one head, keys in order, sums in double.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/full_attention.h"
#include "ops/common/scalar_access.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {

using HeadSums = std::array<double, kMaxHeadSize>;

/// softmax(scale q K^T + bias) V over keys [0, count), count >= 1; `bias(j)` is added to the logit
/// of key j. q: head `head` of row `row`. Results are in the first Dv elements of `out`.
template <typename Keys, typename Bias>
void attend_all_ref(const Tensor& q_rows, int64_t row, int64_t head, const FullAttention& shape,
                    const Keys& keys, int64_t count, const Bias& bias, HeadSums& out) {
  HeadSums q;
  for (int d = 0; d < shape.head_size; ++d) {
    q[static_cast<size_t>(d)] =
        load_float(q_rows.data, q_rows.dtype, (row * shape.heads + head) * shape.head_size + d);
  }
  double largest = -INFINITY, total = 0;
  std::fill_n(out.begin(), shape.v_head_size, 0.0);
  keys.for_each(0, count, [&](int64_t j, const auto* k, const auto* v) {
    double dot = 0;
    for (int d = 0; d < shape.head_size; ++d)
      dot += q[static_cast<size_t>(d)] * double{widen(k[d])};
    const double logit = double{shape.scale} * dot + bias(j);
    if (logit > largest) {  // what there is so far is scaled down
      const double correction = std::exp(largest - logit);
      total *= correction;
      for (int d = 0; d < shape.v_head_size; ++d)
        out[static_cast<size_t>(d)] *= correction;
      largest = logit;
    }
    const double p = std::exp(logit - largest);
    total += p;
    for (int d = 0; d < shape.v_head_size; ++d)
      out[static_cast<size_t>(d)] += p * double{widen(v[d])};
  });
  for (int d = 0; d < shape.v_head_size; ++d)
    out[static_cast<size_t>(d)] /= total;
}

/// Computes every row that a sequence owns: attend(sequence, i, head, sums) for row i of a
/// sequence.
template <typename Attend>
void attend_rows_ref(const Launch& launch, const OwnedRows& rows, const FullAttention& shape,
                     const Attend& attend) {
  const RowTiles tiles(rows, shape.heads, 1);
  const Tensor& out = launch.out[0];
  launch.pool().parallel_for(tiles.count(), [&](int64_t task) {
    const RowTile tile = tiles.at(task);
    HeadSums sums;
    attend(tile.sequence, tile.first, tile.head, sums);
    const int64_t row = rows.query_start[tile.sequence] + tile.first;
    const int64_t at = (row * shape.heads + tile.head) * shape.v_head_size;
    for (int d = 0; d < shape.v_head_size; ++d) {
      store_float(out.data, out.dtype, at + d, static_cast<float>(sums[static_cast<size_t>(d)]));
    }
  });
}

/// Element `index` of the output before it is rounded; NaN in rows of no sequence.
template <typename Attend>
double attend_exact(const OwnedRows& rows, const FullAttention& shape, int64_t index,
                    const Attend& attend) {
  const int64_t row = index / shape.v_head_size / shape.heads;
  const int64_t sequence = rows.owner(row);
  if (sequence < 0) return NAN;
  HeadSums sums;
  attend(sequence, row - rows.query_start[sequence], index / shape.v_head_size % shape.heads, sums);
  return sums[static_cast<size_t>(index % shape.v_head_size)];
}

}  // namespace millrace::ops
