#include "ops/common/norm_rows_cuda.cuh"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

void rms_norm_cuda(const Launch& launch) {
  norm_rows_cuda<NormKind::kRms, false>(launch, "rms_norm_cuda", launch.attrs<RmsNorm>().options());
}

}  // namespace millrace::ops
