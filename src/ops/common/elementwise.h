// What add and mul share: out = f(a, b), element by element, a, b and out of one float type.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ops/common/cpu_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/shape_rule.h"
#include "ops/common/vec_loops.h"

namespace millrace::ops {

inline std::vector<ir::TensorType> infer_elementwise(std::string_view op,
                                                     std::span<const ir::TensorType> types) {
  const ShapeRule in(op, types, {"a", "b"});
  in.expect_float(0);
  in.expect_same_type(1, 0);
  return {in.type(0)};
}

inline Cost elementwise_cost(const Launch& launch) {
  return {.bytes = 3.0 * static_cast<double>(launch.in[0].bytes()),
          .flops = static_cast<double>(launch.in[0].count())};
}

template <typename F>
void elementwise_ref(const Launch& launch, const F& f) {
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    const T* a = launch.in[0].as<T>();
    const T* b = launch.in[1].as<T>();
    T* out = launch.out[0].as<T>();
    for_rows(launch, launch.in[0].count(), 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        out[i] = narrow<T>(f(widen(a[i]), widen(b[i])));
    });
  });
}

template <typename V, typename F>
void elementwise_simd(const Launch& launch, const F& f) {
  with_float_type(launch.in[0].dtype, [&]<typename T>(TypeTag<T>) {
    for_rows(launch, launch.in[0].count(), 1, [&](int64_t begin, int64_t end) {
      const T* a = launch.in[0].as<T>() + begin;
      const T* b = launch.in[1].as<T>() + begin;
      T* out = launch.out[0].as<T>() + begin;
      for_vectors<V>(end - begin, [&](int64_t i, auto lanes) {
        store(f(load<V>(a + i, lanes), load<V>(b + i, lanes)), out + i, lanes);
      });
    });
  });
}

}  // namespace millrace::ops
