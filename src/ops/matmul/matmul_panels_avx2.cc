#include "ops/common/vec_avx2.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/matmul_panels.h"

namespace millrace::ops {

const PanelsKernel kPanelsAvx2 = kFloatPanels<avx2::Vec>;

}  // namespace millrace::ops
