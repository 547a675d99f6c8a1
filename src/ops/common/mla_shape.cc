#include "ops/common/mla_shape.h"

#include "base/error.h"

namespace millrace::ops {

void check_mla_shape(const MlaShape& s) {
  if (s.heads < 1 || s.nope_size < 1 || s.rope_size < 2 || s.rope_size % 2 != 0 ||
      s.latent_size < 1 || s.v_size < 0) {
    throw_bad_input(str(s.heads, " heads of ", s.nope_size, " + ", s.rope_size, " and ", s.v_size,
                        " with a latent of ", s.latent_size,
                        ": sizes must be positive, the rotated one even"));
  }
  if (s.cached() > kMaxHeadSize || s.q_size() > kMaxHeadSize || s.v_size > kMaxHeadSize) {
    throw_bad_input(str("heads of ", s.q_size(), " and ", s.v_size, " with ", s.cached(),
                        " cached elements; at most ", kMaxHeadSize, " are supported"));
  }
}

}  // namespace millrace::ops
