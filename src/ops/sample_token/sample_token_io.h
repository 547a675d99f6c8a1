// What every tactic of sample_token does around the choice itself.
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "ops/common/philox.h"
#include "ops/common/sampling_row.h"
#include "ops/op.h"

namespace millrace::ops {

/// Inputs and outputs by their names.
struct SampleTokenIo {
  explicit SampleTokenIo(const Launch& launch);

  SamplingRow row(int64_t l) const { return read_sampling_row(rows, l); }
  /// The logits that row l chooses from.
  MILLRACE_HD const float* logits_of(const SamplingRow& row, int64_t l) const {
    return ((row.flags & kSamplingAdjusts) != 0 ? adjusted : logits) + l * vocab;
  }
  /// Writes the choice; a status that is not kSamplingOk makes it token 0.
  MILLRACE_HD void put(const SamplingRow& row, int64_t l, int32_t token,
                       SamplingStatus result) const {
    tokens[l] = result == kSamplingOk ? token : 0;
    status[l] = result;
    if (row.slot >= 0 && row.length < capacity) {
      history[row.slot * capacity + row.length] = tokens[l];
    }
  }

  int64_t count, vocab;      // L, V
  int64_t capacity;          // M
  int32_t* history;          // [R, M]
  const float* logits;       // [L, V]
  const float* adjusted;     // [L, V]
  const int32_t* rows;       // [L, 32]
  int32_t *tokens, *status;  // [L]
};

/// The number in [0, total) that decides the draw of a row.
MILLRACE_HD inline uint64_t draw_units(const SamplingRow& row, uint64_t total) {
  const uint64_t random = request_random(row.seed, row.output_index, row.length, RandomUse::kToken);
  return scale_random(random, total);
}

/// Of the largest logit: what keeps a row from a choice.
MILLRACE_HD inline SamplingStatus status_of_max(float max) {
  constexpr float kInfinity = __builtin_inff();
  if (max == -kInfinity) return kSamplingNoCandidate;
  return max < kInfinity ? kSamplingOk : kSamplingNotFinite;
}

}  // namespace millrace::ops
