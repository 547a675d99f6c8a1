#include "ops/common/vec_avx2.h"
#include "ops/harness/ceiling_kernels.h"

namespace millrace::ops {

CeilingKernels ceiling_kernels_avx2() {
  return make_ceiling_kernels<avx2::Vec>();
}

}  // namespace millrace::ops
