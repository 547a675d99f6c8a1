#include "ops/common/copy_rows_cuda.cuh"
#include "ops/slice_cols/slice_cols.h"

namespace millrace::ops {

void slice_cols_cuda(const Launch& launch) {
  copy_rows_cuda(launch, "slice_cols_cuda", nullptr, launch.attrs<SliceCols>().begin);
}

}  // namespace millrace::ops
