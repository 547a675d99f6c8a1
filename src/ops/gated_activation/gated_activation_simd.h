// gated_activation by vectors of type V, rows spread over threads.
#pragma once

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/common/vec_math.h"
#include "ops/gated_activation/gated_activation.h"

namespace millrace::ops {

template <typename V, ActivationKind kKind, typename T>
void gated_activation_row(const T* gate, const T* up, T* out, int64_t width) {
  for_vectors<V>(width, [&](int64_t i, auto lanes) {
    store(vec_activation<kKind>(load<V>(gate + i, lanes)) * load<V>(up + i, lanes), out + i, lanes);
  });
}

template <typename V>
void gated_activation_simd(const Launch& launch) {
  const ActivationKind kind = *parse_activation(launch.attrs<GatedActivation>().kind);
  const int64_t width = launch.out[0].dim(-1);  // F
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    with_activation(kind, [&]<ActivationKind kKind>(ActivationTag<kKind>) {
      for_rows(launch, launch.out[0].rows(), kCostOfAnExponential * width,
               [&](int64_t first, int64_t last) {
                 for (int64_t row = first; row < last; ++row) {
                   const T* gate = launch.in[0].as<T>() + row * 2 * width;
                   gated_activation_row<V, kKind>(gate, gate + width,
                                                  launch.out[0].as<T>() + row * width, width);
                 }
               });
    });
  });
}

}  // namespace millrace::ops
