// What the tactics of log_softmax share.
#pragma once

#include <cstdint>

#include "ops/op.h"

namespace millrace::ops {

/// Tokens of a row that one task reads; a multiple of kSamplingBlock.
inline constexpr int64_t kLogSoftmaxChunk = 16384;

inline int64_t log_softmax_chunks(int64_t vocab) {
  return (vocab + kLogSoftmaxChunk - 1) / kLogSoftmaxChunk;
}

/// What the faster CPU tactics know of a chunk of a row.
struct LogSoftmaxChunk {
  float max = 0;       // NaN when one is in it
  uint64_t units = 0;  // sum of weight_units
};

/// The logarithm of the sum of exponentials, in double; NaN when the row has no probabilities.
double log_sum_of_row(const float* x, int64_t vocab);

}  // namespace millrace::ops
