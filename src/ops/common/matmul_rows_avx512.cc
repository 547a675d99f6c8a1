#include "ops/common/matmul_kernels.h"
#include "ops/common/matmul_rows.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void matmul_rows_avx512(const MatmulJob& job, const MatmulPart& part) {
  multiply_rows<avx512::Vec>(job, part);
}

}  // namespace millrace::ops
