#include <algorithm>

#include "ops/op.h"

namespace millrace::ops {

void sample_prompt_ref(const Launch& launch) {
  auto* history = launch.out[0].as<int32_t>();  // [R, M]
  const int64_t capacity = launch.out[0].dim(1);
  const auto* ids = launch.in[1].as<int32_t>();       // [N]
  const auto* segments = launch.in[2].as<int32_t>();  // [A, 4]
  for (int64_t a = 0; a < launch.in[2].dim(0); ++a) {
    const int32_t* segment = segments + 4 * a;
    const int64_t slot = segment[0], position = segment[1], start = segment[2];
    if (slot < 0) continue;
    const int64_t count = std::min<int64_t>(segment[3], capacity - position);
    if (count > 0) std::copy_n(ids + start, count, history + slot * capacity + position);
  }
}

}  // namespace millrace::ops
