// What follows the sums: out = f(sums + bias) + residual, by vectors of type V.
#pragma once

#include "ops/common/float_types.h"
#include "ops/common/matmul_job.h"
#include "ops/common/vec_loops.h"
#include "ops/common/vec_math.h"

namespace millrace::ops {

template <typename V, typename Lanes>
V load_bias(const MatmulJob& job, int64_t n, Lanes lanes) {
  switch (job.bias_type) {
    case ir::DType::kBF16:
      return load<V>(static_cast<const Bf16*>(job.bias) + n, lanes);
    case ir::DType::kF16:
      return load<V>(static_cast<const F16*>(job.bias) + n, lanes);
    default:
      return load<V>(static_cast<const float*>(job.bias) + n, lanes);
  }
}

/// Columns [begin, end) of row t; `sums` begins with column `begin`, and may be out's own memory.
template <typename V, ActivationKind kKind>
void finish_row(const MatmulJob& job, int64_t t, int64_t begin, int64_t end, const float* sums) {
  float* out = static_cast<float*>(job.out) + t * job.cols;
  const float* residual =
      job.residual == nullptr ? nullptr : static_cast<const float*>(job.residual) + t * job.cols;
  for_vectors<V>(end - begin, [&](int64_t i, auto lanes) {
    const int64_t n = begin + i;
    V v = load<V>(sums + i, lanes);
    if (job.bias != nullptr) v = v + load_bias<V>(job, n, lanes);
    v = vec_activation<kKind>(v);
    if (residual != nullptr) v = v + load<V>(residual + n, lanes);
    store(v, out + n, lanes);
  });
}

/// A part of out from its sums, rows `stride` apart.
template <typename V>
void finish(const MatmulJob& job, const MatmulPart& part, const float* sums, int64_t stride) {
  with_activation(job.activation, [&]<ActivationKind kKind>(ActivationTag<kKind>) {
    for (int64_t t = part.row_begin; t < part.row_end; ++t)
      finish_row<V, kKind>(job, t, part.col_begin, part.col_end,
                           sums + (t - part.row_begin) * stride);
  });
}

}  // namespace millrace::ops
