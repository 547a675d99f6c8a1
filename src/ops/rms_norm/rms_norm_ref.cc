#include "ops/common/norm_rows.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

void rms_norm_ref(const Launch& launch) {
  norm_rows_ref<false>(launch, launch.attrs<RmsNorm>().options(),
                       [](const auto* x, const auto& weights, auto* out, int64_t width,
                          double eps) { rms_norm_row_ref(x, weights, out, width, eps); });
}

}  // namespace millrace::ops
