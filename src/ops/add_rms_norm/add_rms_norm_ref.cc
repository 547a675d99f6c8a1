#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/common/norm_rows.h"

namespace millrace::ops {

void add_rms_norm_ref(const Launch& launch) {
  norm_rows_ref<true>(launch, launch.attrs<AddRmsNorm>().options(),
                      [](const auto* x, const auto& weights, auto* out, int64_t width, double eps) {
                        rms_norm_row_ref(x, weights, out, width, eps);
                      });
}

}  // namespace millrace::ops
