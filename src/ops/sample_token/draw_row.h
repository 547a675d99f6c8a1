// A draw from one row without sorting it.
#pragma once

#include <cstdint>

#include "ops/common/sampling_kernels.h"
#include "ops/common/sampling_row.h"
#include "ops/sample_token/sample_token_work.h"

namespace millrace::ops {

/// One row, after the passes that all threads share.
struct DrawRow {
  SamplingRow row;
  const float* x = nullptr;        // [V]
  int64_t vocab = 0;               // V
  float max = 0;                   // the largest s
  const float* maxima = nullptr;   // [blocks] of x
  const uint64_t* sums = nullptr;  // [chunks] of weight_units; only where needs_sums()

  bool limits_k() const { return row.top_k > 0 && row.top_k < vocab; }
  bool is_unlimited() const {
    return !limits_k() && row.top_p >= 1 && row.min_p <= 0 && row.typical_p >= 1;
  }
  /// Whether the choice depends on the sum of all weights.
  bool needs_sums() const { return !limits_k() && (row.top_p < 1 || is_unlimited()); }
};

int32_t draw_row(const DrawRow& d, const SamplingKernels& kernels, Candidates candidates);

}  // namespace millrace::ops
