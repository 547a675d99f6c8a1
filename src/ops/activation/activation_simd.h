// activation by vectors of type V, elements spread over threads.
#pragma once

#include "ops/activation/activation.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/common/vec_math.h"

namespace millrace::ops {

template <typename V>
void activation_simd(const Launch& launch) {
  const ActivationKind kind = *parse_activation(launch.attrs<Activation>().kind);
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    with_activation(kind, [&]<ActivationKind kKind>(ActivationTag<kKind>) {
      for_rows(launch, launch.in[0].count(), kCostOfAnExponential, [&](int64_t begin, int64_t end) {
        const T* x = launch.in[0].as<T>() + begin;
        T* out = launch.out[0].as<T>() + begin;
        for_vectors<V>(end - begin, [&](int64_t i, auto lanes) {
          store(vec_activation<kKind>(load<V>(x + i, lanes)), out + i, lanes);
        });
      });
    });
  });
}

}  // namespace millrace::ops
