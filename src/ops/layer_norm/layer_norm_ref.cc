#include "ops/common/norm_rows.h"
#include "ops/layer_norm/layer_norm.h"

namespace millrace::ops {

void layer_norm_ref(const Launch& launch) {
  norm_rows_ref<false>(launch, launch.attrs<LayerNorm>().options(),
                       [](const auto* x, const auto& weights, auto* out, int64_t width,
                          double eps) { layer_norm_row_ref(x, weights, out, width, eps); });
}

}  // namespace millrace::ops
