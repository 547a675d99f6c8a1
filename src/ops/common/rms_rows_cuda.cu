#include "ops/common/norm_rows_cuda.cuh"
#include "ops/common/rms_rows_cuda.h"

namespace millrace::ops {

void rms_rows_cuda(const Launch& launch, const NormOptions& options) {
  norm_rows_cuda<NormKind::kRms, false>(launch, "rms_rows_cuda", options);
}

void rms_rows_cuda(device::Queue& queue, const Tensor& x, const Tensor& weight,
                   const NormOptions& options, const Tensor& out) {
  const Tensor in[] = {x, weight};
  rms_rows_cuda({.in = in, .out = {&out, 1}, .queue = &queue}, options);
}

}  // namespace millrace::ops
