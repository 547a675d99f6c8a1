#include "ops/common/cpu_tactic.h"
#include "ops/common/scalar_access.h"
#include "ops/moe_combine/moe_combine.h"

namespace millrace::ops {

void moe_combine_ref(const Launch& launch) {
  const Tensor& y = launch.in[0];
  const Tensor& out = launch.out[0];
  const int64_t width = out.dim(1), experts = launch.in[1].dim(1);
  for_rows(launch, out.dim(0), experts * width, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* weights = launch.in[1].as<float>() + row * experts;
      for (int64_t i = 0; i < width; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < experts; ++j) {
          const int64_t at = (row * experts + j) * width + i;
          sum += double{weights[j]} * double{load_float(y.data, y.dtype, at)};
        }
        store_float(out.data, out.dtype, row * width + i, static_cast<float>(sum));
      }
    }
  });
}

}  // namespace millrace::ops
