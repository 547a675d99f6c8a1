#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/common/norm_rows_cuda.cuh"

namespace millrace::ops {

void add_layer_norm_cuda(const Launch& launch) {
  norm_rows_cuda<NormKind::kLayer, true>(launch, "add_layer_norm_cuda",
                                         launch.attrs<AddLayerNorm>().options());
}

}  // namespace millrace::ops
