#include "ops/common/matmul_kernels.h"
#include "ops/common/matmul_panels.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

const PanelsKernel kPanelsAvx512 = kFloatPanels<avx512::Vec>;

}  // namespace millrace::ops
