#include "base/thread_pool.h"
#include "ops/common/scalar_access.h"
#include "ops/op.h"
#include "ops/sinusoid/sinusoid_math.h"

namespace millrace::ops {

void sinusoid_ref(const Launch& launch) {
  const Tensor& out = launch.out[0];
  const auto* positions = launch.in[0].as<int32_t>();
  launch.pool().parallel_for(out.dim(0), [&](int64_t t) {
    for (int64_t c = 0; c < out.dim(1); ++c) {
      store_float(out.data, out.dtype, t * out.dim(1) + c,
                  static_cast<float>(sinusoid_at(positions[t], c, out.dim(1))));
    }
  });
}

}  // namespace millrace::ops
