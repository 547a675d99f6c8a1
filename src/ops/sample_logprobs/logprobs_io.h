// What the tactics of sample_logprobs share: inputs and outputs by their names.
#pragma once

#include <cstdint>

#include "ops/op.h"

namespace millrace::ops {

struct LogprobsIo {
  explicit LogprobsIo(const Launch& launch);

  const float* x(int64_t l) const { return logits + l * vocab; }
  bool is_wanted(int64_t l) const { return counts[l] >= 0; }
  /// How many best tokens row l wants.
  int64_t wanted(int64_t l) const;

  /// The outputs of row l that hold before any is known: ids -1, numbers `value`.
  void clear(int64_t l, float value) const;
  /// The target's log-probability; `lse` is the logarithm of the sum of exponentials.
  void put_target(int64_t l, double lse) const;
  void put_best(int64_t l, int64_t place, int32_t token, double lse) const;

  int64_t count, vocab, k;  // L, V, k
  const float* logits;      // [L, V]
  const int32_t* targets;   // [L]
  const int32_t* counts;    // [L]
  float* logprobs;          // [L]
  int32_t* top_ids;         // [L, k]
  float* top_logprobs;      // [L, k]
};

}  // namespace millrace::ops
