// moe_combine by vectors of type V, rows spread over threads.
#pragma once

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/moe_combine/moe_combine.h"

namespace millrace::ops {

template <typename V>
void moe_combine_simd(const Launch& launch) {
  const int64_t width = launch.out[0].dim(1), experts = launch.in[1].dim(1);
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    for_rows(launch, launch.out[0].dim(0), experts * width, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        const float* weights = launch.in[1].as<float>() + row * experts;
        const T* y = launch.in[0].as<T>() + row * experts * width;
        T* out = launch.out[0].as<T>() + row * width;
        for_vectors<V>(width, [&](int64_t i, auto lanes) {
          V sum = V::zero();
          for (int64_t j = 0; j < experts; ++j)
            sum = fma(V::set(weights[j]), load<V>(y + j * width + i, lanes), sum);
          store(sum, out + i, lanes);
        });
      }
    });
  });
}

}  // namespace millrace::ops
