#include "ops/common/vec_avx512.h"
#include "ops/matmul/matmul_kernels.h"
#include "ops/matmul/matmul_panels.h"

namespace millrace::ops {

const PanelsKernel kPanelsAvx512 = kFloatPanels<avx512::Vec>;

}  // namespace millrace::ops
