// The logits processors of one row, but for the penalties: those need counts, which each tactic
// gets its own way.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "ops/common/sampling_row.h"
#include "ops/op.h"

namespace millrace::ops {

/// One row at work.
struct ProcessRow {
  SamplingRow row;
  float* x = nullptr;                // [V], already a copy of the logits
  int64_t vocab = 0;                 // V
  const int32_t* lists = nullptr;    // [P]
  std::span<const int32_t> history;  // the slot's first `length` tokens

  bool knows(int32_t id) const { return id >= 0 && id < vocab; }
  int32_t new_tokens() const { return row.length - row.prompt_length; }
  std::span<const int32_t> list(const ListSpan& span) const {
    return {lists + span.offset, static_cast<size_t>(span.count)};
  }
  bool counts_tokens() const {
    return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
  }
};

/// At most this many tasks work at once, so that their tables stay modest: 8 MB at V = 128k.
inline int64_t process_tasks(const Launch& launch) {
  return std::min<int64_t>(launch.in[0].dim(0), 16);
}

/// Row `l` of the launch, without its copy of the logits. A row without kSamplingAdjusts, or
/// padding: x is null.
ProcessRow open_row(const Launch& launch, int64_t l);

/// What the penalties make of a logit whose token occurs in the history, `count` times among the
/// new tokens.
float penalise(const SamplingRow& row, float x, int32_t count);

void add_logit_bias(const ProcessRow& p);
/// Everything after the penalties.
void mask_tokens(const ProcessRow& p);

}  // namespace millrace::ops
