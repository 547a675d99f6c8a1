#include "ops/common/matmul_kernels.h"
#include "ops/common/matmul_rows.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void matmul_rows_avx2(const MatmulJob& job, const MatmulPart& part) {
  multiply_rows<avx2::Vec>(job, part);
}

}  // namespace millrace::ops
