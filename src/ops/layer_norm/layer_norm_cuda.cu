#include "ops/common/norm_rows_cuda.cuh"
#include "ops/layer_norm/layer_norm.h"

namespace millrace::ops {

void layer_norm_cuda(const Launch& launch) {
  norm_rows_cuda<NormKind::kLayer, false>(launch, "layer_norm_cuda",
                                          launch.attrs<LayerNorm>().options());
}

}  // namespace millrace::ops
