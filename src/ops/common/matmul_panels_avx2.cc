#include "ops/common/matmul_kernels.h"
#include "ops/common/matmul_panels.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

const PanelsKernel kPanelsAvx2 = kFloatPanels<avx2::Vec>;

}  // namespace millrace::ops
