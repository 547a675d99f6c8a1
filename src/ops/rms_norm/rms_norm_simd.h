// rms_norm by vectors of type V, rows spread over threads.
#pragma once

#include "ops/common/norm_rows.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

template <typename V>
void rms_norm_simd(const Launch& launch) {
  norm_rows_simd<false, V>(launch, launch.attrs<RmsNorm>().options(),
                           [](const auto* x, const auto& weights, auto* out, int64_t width,
                              double eps) { rms_norm_row<V>(x, weights, out, width, eps); });
}

}  // namespace millrace::ops
