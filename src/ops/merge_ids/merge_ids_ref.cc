// At most some thousand integers a step: one thread.
#include "ops/common/cpu_tactic.h"

namespace millrace::ops {

void merge_ids_ref(const Launch& launch) {
  const auto* ids = launch.in[0].as<int32_t>();       // [T]
  const auto* last_ids = launch.in[1].as<int32_t>();  // [R, M]
  auto* out = launch.out[0].as<int32_t>();            // [T]
  for (int64_t t = 0; t < launch.in[0].dim(0); ++t)
    out[t] = ids[t] >= 0 ? ids[t] : last_ids[-1 - ids[t]];
}

}  // namespace millrace::ops
