#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/common/norm_rows.h"

namespace millrace::ops {

void add_layer_norm_ref(const Launch& launch) {
  norm_rows_ref<true>(launch, launch.attrs<AddLayerNorm>().options(),
                      [](const auto* x, const auto& weights, auto* out, int64_t width, double eps) {
                        layer_norm_row_ref(x, weights, out, width, eps);
                      });
}

}  // namespace millrace::ops
