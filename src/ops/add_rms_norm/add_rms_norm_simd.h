// add_rms_norm by vectors of type V, rows spread over threads.
#pragma once

#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/norm_rows.h"

namespace millrace::ops {

template <typename V>
void add_rms_norm_simd(const Launch& launch) {
  const Tensor& x = launch.in[0];         // [T, E]
  const Tensor& residual = launch.in[1];  // [T, E]
  const Tensor& weight = launch.in[2];    // [E]
  const int64_t width = x.dim(1);
  const double eps = launch.attrs<AddRmsNorm>().eps;
  with_float_type(x.dtype, [&]<typename X>(TypeTag<X>) {
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      for_rows(launch, x.dim(0), width, [&](int64_t first, int64_t last) {
        for (int64_t at = first * width; at < last * width; at += width) {
          X* sum = launch.out[0].as<X>() + at;
          add_row<V>(x.as<X>() + at, residual.as<X>() + at, sum, width);
          rms_norm_row<V>(sum, weight.as<W>(), launch.out[1].as<X>() + at, width, eps);
        }
      });
    });
  });
}

}  // namespace millrace::ops
