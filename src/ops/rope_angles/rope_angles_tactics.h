// The ways to run rope_angles, and what they share.
#pragma once

#include <vector>

#include "ops/common/rope_frequencies.h"
#include "ops/op.h"
#include "ops/rope_angles/rope_angles.h"

namespace millrace::ops {

/// The attributes with the frequencies that follow from them: a launch's attributes point to one.
struct RopeAnglesPlan : RopeAngles {
  explicit RopeAnglesPlan(RopeAngles attributes);
  /// The frequencies of a sequence. `made` holds those that were not known before the prompt.
  const RopeFrequencies& frequencies(int64_t prompt_length, RopeFrequencies* made) const;

  RopeScaling scaling;
  RopeFrequencies usual;   // of all prompts, or of those up to the length that the rule changes at
  RopeFrequencies longer;  // longrope: of the others
};

void rope_angles_ref(const Launch& launch);
void rope_angles_cuda(const Launch& launch);

/// The CUDA kernel gets its frequencies, half the rotary dimension, as arguments.
inline constexpr int kMaxCudaFrequencies = 256;

}  // namespace millrace::ops
