// rescale by vectors of type V, elements spread over threads.
#pragma once

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/common/vec_math.h"
#include "ops/rescale/rescale.h"

namespace millrace::ops {

template <typename V>
void rescale_simd(const Launch& launch) {
  const auto& attrs = launch.attrs<Rescale>();
  const bool bent = attrs.softcap > 0;
  const V factor = V::set(static_cast<float>(attrs.factor));
  const V cap = V::set(static_cast<float>(attrs.softcap));
  const V low = V::set(static_cast<float>(attrs.low));
  const V high = V::set(static_cast<float>(attrs.high));
  const auto rescale = [&](V x) {
    V y = factor * x;
    if (bent) y = cap * vec_tanh(y / cap);
    return min(high, max(low, y));  // in this order NaN gets through
  };
  const int64_t work = bent ? kCostOfAnExponential : 1;
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    for_rows(launch, launch.in[0].count(), work, [&](int64_t begin, int64_t end) {
      const T* x = launch.in[0].as<T>() + begin;
      T* out = launch.out[0].as<T>() + begin;
      for_vectors<V>(end - begin, [&](int64_t i, auto lanes) {
        store(rescale(load<V>(x + i, lanes)), out + i, lanes);
      });
    });
  });
}

}  // namespace millrace::ops
