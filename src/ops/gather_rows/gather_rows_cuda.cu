#include "ops/common/copy_rows_cuda.cuh"

namespace millrace::ops {

void gather_rows_cuda(const Launch& launch) {
  copy_rows_cuda(launch, "gather_rows_cuda", launch.in[1].as<int32_t>(), 0);
}

}  // namespace millrace::ops
