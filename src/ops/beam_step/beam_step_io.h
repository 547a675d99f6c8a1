// The tensors of one launch of beam_step. For host and GPU.
#pragma once

#include <cstddef>

#include "base/host_device.h"
#include "ops/beam_step/beam_step.h"
#include "ops/common/beam_row.h"
#include "ops/op.h"

namespace millrace::ops {

inline constexpr float kUnusedBeam = -1e9F;  // transformers' score of beams that do not exist yet

/// A continuation: index b V + t.
struct Continuation {
  float score = -__builtin_inff();
  int32_t index = -1;  // -1: none

  MILLRACE_HD bool is_before(const Continuation& other) const {
    return score > other.score || (score == other.score && index < other.index);
  }
};

struct BeamStepIo {
  explicit BeamStepIo(const Launch& launch)
      : requests(launch.in[4].dim(0)),
        vocab(launch.in[1].dim(1)),
        k(launch.attrs<BeamStep>().beams),
        scores(launch.out[0].as<float>()),
        log_probs(launch.in[1].as<float>()),
        adjusted(launch.in[2].as<float>()),
        rows(launch.in[3].as<int32_t>()),
        beams(launch.in[4].as<int32_t>()),
        lists(launch.in[5].as<int32_t>()),
        chosen(launch.out[1].as<float>()),
        parents(launch.out[2].as<int32_t>()),
        tokens(launch.out[3].as<int32_t>()),
        status(launch.out[4].as<int32_t>()) {}

  int64_t requests, vocab;
  int32_t k;
  float* scores;
  const float* log_probs;
  const float* adjusted;
  const int32_t* rows;
  const int32_t* beams;
  const int32_t* lists;
  float* chosen;
  int32_t* parents;
  int32_t* tokens;
  int32_t* status;

  /// The score of beam b before this step.
  MILLRACE_HD float base(const BeamRow& beam, int32_t b) const {
    if (beam.rows == 1) return b == 0 ? 0 : kUnusedBeam;
    return scores[beam.slot + b];
  }
  /// [V] of beam b.
  MILLRACE_HD const float* x(const BeamRow& beam, int32_t b) const {
    const int64_t row = beam.first_row + (beam.rows == 1 ? 0 : b);
    constexpr int64_t kFlags = offsetof(SamplingRow, flags) / sizeof(int32_t);
    const bool adjusts = (rows[row * kSamplingRowWords + kFlags] & kSamplingAdjusts) != 0;
    return (adjusts ? adjusted : log_probs) + row * vocab;
  }
  MILLRACE_HD bool ends(const BeamRow& beam, int32_t token) const {
    for (int32_t i = 0; i < beam.end_ids.count; ++i) {
      if (lists[beam.end_ids.offset + i] == token) return true;
    }
    return false;
  }
  /// `place` of [0, 2K).
  MILLRACE_HD void put(int64_t request, int32_t place, const Continuation& c) const {
    const int64_t at = request * 2 * k + place;
    chosen[at] = c.score;
    parents[at] = c.index < 0 ? 0 : static_cast<int32_t>(c.index / vocab);
    tokens[at] = c.index < 0 ? 0 : static_cast<int32_t>(c.index % vocab);
  }
};

}  // namespace millrace::ops
