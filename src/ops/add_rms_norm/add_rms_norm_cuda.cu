#include "ops/add_rms_norm/add_rms_norm.h"
#include "ops/common/norm_rows_cuda.cuh"

namespace millrace::ops {

void add_rms_norm_cuda(const Launch& launch) {
  norm_rows_cuda<NormKind::kRms, true>(launch, "add_rms_norm_cuda",
                                       launch.attrs<AddRmsNorm>().options());
}

}  // namespace millrace::ops
