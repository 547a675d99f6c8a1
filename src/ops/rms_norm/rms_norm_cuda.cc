#include "ops/common/rms_rows_cuda.h"
#include "ops/rms_norm/rms_norm.h"

namespace millrace::ops {

void rms_norm_cuda(const Launch& launch) {
  rms_rows_cuda(launch, launch.attrs<RmsNorm>().options());
}

}  // namespace millrace::ops
