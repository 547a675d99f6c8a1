// The optional input of embedding.
#pragma once

#include "ops/op.h"

namespace millrace::ops {

/// [R P, E] of virtual tokens, or null.
inline const float* prompt_rows(const Launch& launch) {
  return launch.in.size() == 3 ? launch.in[2].as<float>() : nullptr;
}

}  // namespace millrace::ops
