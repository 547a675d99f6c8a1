#include "ops/common/vec_avx512.h"
#include "ops/harness/ceiling_kernels.h"

namespace millrace::ops {

CeilingKernels ceiling_kernels_avx512() {
  return make_ceiling_kernels<avx512::Vec>();
}

}  // namespace millrace::ops
