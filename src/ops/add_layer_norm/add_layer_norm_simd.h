// add_layer_norm by vectors of type V, rows spread over threads.
#pragma once

#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/common/norm_rows.h"

namespace millrace::ops {

template <typename V>
void add_layer_norm_simd(const Launch& launch) {
  norm_rows_simd<true, V>(launch, launch.attrs<AddLayerNorm>().options(),
                          [](const auto* x, const auto& weights, auto* out, int64_t width,
                             double eps) { layer_norm_row<V>(x, weights, out, width, eps); });
}

}  // namespace millrace::ops
