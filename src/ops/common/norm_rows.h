// One row of each norm, for the norm ops and their fusions with the residual sum.
//   rms_norm:   out = x / sqrt(mean(x^2) + eps) * weight
//   layer_norm: out = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias
// The reference sums in double and does the rest in float. By vectors, sums are in float with
// 4 x V::kWidth accumulators; rows stay in the first-level cache from pass to pass.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

inline float norm_scale(double mean_square, double eps) {
  return static_cast<float>(1 / std::sqrt(mean_square + eps));
}

template <typename X, typename W>
void rms_norm_row_ref(const X* x, const W* weight, X* out, int64_t width, double eps) {
  double squares = 0;
  for (int64_t i = 0; i < width; ++i)
    squares += static_cast<double>(widen(x[i])) * widen(x[i]);
  const float scale = norm_scale(squares / static_cast<double>(width), eps);
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(widen(x[i]) * scale * widen(weight[i]));
}

/// `bias` may be null.
template <typename X, typename W>
void layer_norm_row_ref(const X* x, const W* weight, const W* bias, X* out, int64_t width,
                        double eps) {
  double total = 0, squares = 0;
  for (int64_t i = 0; i < width; ++i)
    total += widen(x[i]);
  const double mean = total / static_cast<double>(width);
  for (int64_t i = 0; i < width; ++i)
    squares += (widen(x[i]) - mean) * (widen(x[i]) - mean);
  const float scale = norm_scale(squares / static_cast<double>(width), eps);
  for (int64_t i = 0; i < width; ++i) {
    const float normed = static_cast<float>(widen(x[i]) - mean) * scale * widen(weight[i]);
    out[i] = narrow<X>(bias == nullptr ? normed : normed + widen(bias[i]));
  }
}

template <typename X>
void add_row_ref(const X* a, const X* b, X* out, int64_t width) {
  for (int64_t i = 0; i < width; ++i)
    out[i] = narrow<X>(widen(a[i]) + widen(b[i]));
}

template <typename V, typename X, typename W>
void rms_norm_row(const X* x, const W* weight, X* out, int64_t width, double eps) {
  const float squares = sum_row<V>(x, width, [](V v) { return v * v; });
  const V scale = V::set(norm_scale(squares / static_cast<double>(width), eps));
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(load<V>(x + i, lanes) * scale * load<V>(weight + i, lanes), out + i, lanes);
  });
}

template <typename V, typename X, typename W>
void layer_norm_row(const X* x, const W* weight, const W* bias, X* out, int64_t width, double eps) {
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
    V normed = ((load<V>(x + i, lanes) - mean) - rest) * scale * load<V>(weight + i, lanes);
    if (bias != nullptr) normed = normed + load<V>(bias + i, lanes);
    store(normed, out + i, lanes);
  });
}

template <typename V, typename X>
void add_row(const X* a, const X* b, X* out, int64_t width) {
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(load<V>(a + i, lanes) + load<V>(b + i, lanes), out + i, lanes);
  });
}

}  // namespace millrace::ops
