// The inputs of one attention_generation launch, found among those that its attributes leave out.
#pragma once

#include "ops/attention_generation/attention_generation.h"
#include "ops/common/sequence_inputs.h"

namespace millrace::ops {

/// Index of each input, or -1 where there is none. Sink logits, a relative bias and the beam inputs
/// come last and are found from the end (AttentionShape).
struct GenerationInputs {
  static constexpr int kQ = 0, kSequence = 1, kCache = kSequence + kNumSequenceInputs,
                       kOut = kCache + 1;
  int k = -1, v = -1, angles = -1, plan = -1;
  int count = kOut + 1;  // of all but the last ones

  explicit GenerationInputs(const AttentionGeneration& a) {
    if (a.append && !a.packed) {
      k = count++;
      v = count++;
    }
    if (a.append && a.rotary_dim > 0) angles = count++;
    if (a.planned) plan = count++;
  }
};

}  // namespace millrace::ops
