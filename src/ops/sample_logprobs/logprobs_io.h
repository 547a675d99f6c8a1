// What the tactics of sample_logprobs share: inputs and outputs by their names.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/host_device.h"
#include "ops/op.h"

namespace millrace::ops {

inline constexpr int kMaxCudaBest = 128;  // k of the CUDA tactic

struct LogprobsIo {
  explicit LogprobsIo(const Launch& launch);

  MILLRACE_HD const float* x(int64_t l) const { return logits + l * vocab; }
  MILLRACE_HD bool is_wanted(int64_t l) const { return counts[l] >= 0; }
  /// How many best tokens row l wants.
  MILLRACE_HD int64_t wanted(int64_t l) const { return std::min({int64_t{counts[l]}, k, vocab}); }

  /// The outputs of row l that hold before any is known: ids -1, numbers `value`.
  void clear(int64_t l, float value) const;
  /// The target's log-probability; `lse` is the logarithm of the sum of exponentials.
  MILLRACE_HD void put_target(int64_t l, double lse) const {
    const int32_t target = targets[l];
    if (target < 0 || target >= vocab) return;
    logprobs[l] = static_cast<float>(static_cast<double>(x(l)[target]) - lse);
  }
  MILLRACE_HD void put_best(int64_t l, int64_t place, int32_t token, double lse) const {
    top_ids[l * k + place] = token;
    top_logprobs[l * k + place] = static_cast<float>(static_cast<double>(x(l)[token]) - lse);
  }

  int64_t count, vocab, k;  // L, V, k
  const float* logits;      // [L, V]
  const int32_t* targets;   // [L]
  const int32_t* counts;    // [L]
  float* logprobs;          // [L]
  int32_t* top_ids;         // [L, k]
  float* top_logprobs;      // [L, k]
};

}  // namespace millrace::ops
