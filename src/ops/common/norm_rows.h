// One row of each norm, for the norm ops and their fusions with the residual sum.
//   rms_norm:   out = x / sqrt(mean(x^2) + eps) * (weight + offset)
//   layer_norm: out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * (weight + offset) + bias
// The reference sums in double and does the rest in float. By vectors, sums are in float with
// 4 x V::kWidth accumulators; rows stay in the first-level cache from pass to pass.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/norm_call.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

inline float norm_scale(double mean_square, double eps) {
  return static_cast<float>(1 / std::sqrt(mean_square + eps));
}

/// What a row is multiplied by and what is added to it, [width] each.
template <typename W>
struct NormWeights {
  const W* weight;  // null: ones, without offset
  const W* bias;    // null: zeros
  float offset;

  float apply(float normed, int64_t i) const {
    if (weight != nullptr) normed *= widen(weight[i]) + offset;
    return bias == nullptr ? normed : normed + widen(bias[i]);
  }
  template <typename V, typename Lanes>
  V apply(V normed, int64_t i, Lanes lanes) const {
    if (weight != nullptr) normed = normed * (load<V>(weight + i, lanes) + V::set(offset));
    return bias == nullptr ? normed : normed + load<V>(bias + i, lanes);
  }
};

template <typename X, typename W>
void rms_norm_row_ref(const X* x, const NormWeights<W>& weights, X* out, int64_t width,
                      double eps) {
  double squares = 0;
  for (int64_t i = 0; i < width; ++i)
    squares += static_cast<double>(widen(x[i])) * widen(x[i]);
  const float scale = norm_scale(squares / static_cast<double>(width), eps);
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(weights.apply(widen(x[i]) * scale, i));
}

template <typename X, typename W>
void layer_norm_row_ref(const X* x, const NormWeights<W>& weights, X* out, int64_t width,
                        double eps) {
  double total = 0, squares = 0;
  for (int64_t i = 0; i < width; ++i)
    total += widen(x[i]);
  const double mean = total / static_cast<double>(width);
  for (int64_t i = 0; i < width; ++i)
    squares += (widen(x[i]) - mean) * (widen(x[i]) - mean);
  const float scale = norm_scale(squares / static_cast<double>(width), eps);
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(weights.apply(static_cast<float>(widen(x[i]) - mean) * scale, i));
}

template <typename X>
void add_row_ref(const X* a, const X* b, X* out, int64_t width) {
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(widen(a[i]) + widen(b[i]));
}

template <typename V, typename X, typename W>
void rms_norm_row(const X* x, const NormWeights<W>& weights, X* out, int64_t width, double eps) {
  const float squares = sum_row<V>(x, width, [](V v) { return v * v; });
  const V scale = V::set(norm_scale(squares / static_cast<double>(width), eps));
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(weights.apply(load<V>(x + i, lanes) * scale, i, lanes), out + i, lanes);
  });
}

template <typename V, typename X, typename W>
void layer_norm_row(const X* x, const NormWeights<W>& weights, X* out, int64_t width, double eps) {
  const float total = sum_row<V>(x, width, [](V v) { return v; });
  const V mean = V::set(total / static_cast<float>(width));
  // Rounding the mean costs much where it is far from zero: what it missed is taken off later.
  const float missed =
      sum_row<V>(x, width, [mean](V v) { return v - mean; }) / static_cast<float>(width);
  const V rest = V::set(missed);
  const float squares = sum_row<V>(x, width, [mean, rest](V v) {
    const V centred = (v - mean) - rest;
    return centred * centred;
  });
  const V scale = V::set(norm_scale(squares / static_cast<double>(width), eps));
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    const V normed = ((load<V>(x + i, lanes) - mean) - rest) * scale;
    store(weights.apply(normed, i, lanes), out + i, lanes);
  });
}

template <typename V, typename X>
void add_row(const X* a, const X* b, X* out, int64_t width) {
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(load<V>(a + i, lanes) + load<V>(b + i, lanes), out + i, lanes);
  });
}

/// Runs a norm op, rows spread over threads: `sum_row(x, residual, sum, width)` where the call has
/// a residual, then `norm_row(x or sum, weights, out, width, eps)`.
template <typename SumRow, typename NormRow>
void norm_rows(const Launch& launch, const NormCall& call, const NormOptions& options,
               const SumRow& sum_row, const NormRow& norm_row) {
  with_float_type(call.x->dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(call.weight_type(), [&]<typename W>(TypeTag<W>) {
      const W* weight = call.weight == nullptr ? nullptr : call.weight->as<W>();
      const W* bias = call.bias == nullptr ? nullptr : call.bias->as<W>();
      for_rows(launch, call.rows, call.width, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          const int64_t at = row * call.width, skipped = row % call.groups * call.weight_stride;
          const NormWeights<W> weights{.weight = weight == nullptr ? nullptr : weight + skipped,
                                       .bias = bias == nullptr ? nullptr : bias + skipped,
                                       .offset = static_cast<float>(options.weight_offset)};
          const X* x = call.x->as<X>() + at;
          if (call.residual != nullptr) {
            X* sum = call.sum->as<X>() + at;
            sum_row(x, call.residual->as<X>() + at, sum, call.width);
            x = sum;
          }
          norm_row(x, weights, call.out->as<X>() + at, call.width, options.eps);
        }
      });
    });
  });
}

/// norm_rows by scalars, the reference. `kAdd`: the op adds a residual first.
template <bool kAdd, typename NormRow>
void norm_rows_ref(const Launch& launch, const NormOptions& options, const NormRow& norm_row) {
  const auto sum_row = [](const auto* a, const auto* b, auto* sum, int64_t width) {
    add_row_ref(a, b, sum, width);
  };
  norm_rows(launch, norm_call(launch, kAdd, options), options, sum_row, norm_row);
}

/// norm_rows by vectors of type V.
template <bool kAdd, typename V, typename NormRow>
void norm_rows_simd(const Launch& launch, const NormOptions& options, const NormRow& norm_row) {
  const auto sum_row = [](const auto* a, const auto* b, auto* sum, int64_t width) {
    add_row<V>(a, b, sum, width);
  };
  norm_rows(launch, norm_call(launch, kAdd, options), options, sum_row, norm_row);
}

}  // namespace millrace::ops
