#include "base/thread_pool.h"
#include "ops/logn_factors/logn_factors.h"
#include "ops/logn_factors/logn_factors_math.h"
#include "ops/op.h"

namespace millrace::ops {

void logn_factors_ref(const Launch& launch) {
  constexpr int64_t kRowsPerTask = 1024;
  const int64_t length = launch.attrs<LognFactors>().length;
  const auto* positions = launch.in[0].as<int32_t>();
  auto* out = launch.out[0].as<float>();
  launch.pool().parallel_ranges(
      launch.out[0].dim(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t)
          out[t] = static_cast<float>(logn_factor_at(positions[t], length));
      });
}

}  // namespace millrace::ops
