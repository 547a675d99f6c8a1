// The inputs of an mla_append launch.
#pragma once

#include "ops/common/mla_shape.h"
#include "ops/mla_append/mla_append.h"

namespace millrace::ops {

struct MlaAppendInputs {
  static constexpr size_t kQ = 0, kKv = 1, kSequence = 2, kCache = kSequence + kNumSequenceInputs,
                          kAngles = kCache + 1, kNorm = kAngles + 1, kCount = kNorm + 1;
};

inline MlaShape mla_shape(const MlaAppend& a) {
  return {a.heads, a.nope_size, a.rope_size, a.latent_size, 0};
}

}  // namespace millrace::ops
