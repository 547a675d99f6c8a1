// rms_norm by vectors of type V, rows spread over threads. Two passes over a row that stays in the
// first-level cache: bound by reading x once and writing out once where T is large.
#pragma once

#include <cmath>

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

template <typename V, typename X, typename W>
void rms_norm_row(const X* x, const W* weight, X* out, int64_t width, double eps) {
  const float squares = sum_row<V>(x, width, [](V v) { return v * v; });
  const auto scale = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(width) + eps));
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(load<V>(x + i, lanes) * V::set(scale) * load<V>(weight + i, lanes), out + i, lanes);
  });
}

template <typename V>
void rms_norm_simd(const Launch& launch) {
  const Tensor& x = launch.in[0];       // [T, E]
  const Tensor& weight = launch.in[1];  // [E]
  const int64_t width = x.dim(1);
  const double eps = launch.attrs<RmsNorm>().eps;
  with_float_type(x.dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      for_rows(launch, x.dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          rms_norm_row<V>(x.as<X>() + row * width, weight.as<W>(),
                          launch.out[0].as<X>() + row * width, width, eps);
        }
      });
    });
  });
}

}  // namespace millrace::ops
