// The sizes that the ops of latent attention (DeepSeek's MLA) share. What is cached of a token is
// one vector for all heads: its latent [C], then its rotated key [R].
#pragma once

#include <cstdint>

#include "base/host_device.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {

struct MlaShape {
  int heads = 0;        // H
  int nope_size = 0;    // Dn: dimensions of a head of Q and K that are not rotated
  int rope_size = 0;    // R: those that are
  int latent_size = 0;  // C
  int v_size = 0;       // Dv; 0 where it does not matter

  MILLRACE_HD int q_size() const { return nope_size + rope_size; }
  MILLRACE_HD int cached() const { return latent_size + rope_size; }
};

/// Throws Error unless the sizes are ones that the ops can work with.
void check_mla_shape(const MlaShape& shape);

}  // namespace millrace::ops
