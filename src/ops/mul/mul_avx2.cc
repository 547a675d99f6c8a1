#include "ops/common/elementwise.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void mul_avx2(const Launch& launch) {
  elementwise_simd<avx2::Vec>(launch, [](avx2::Vec a, avx2::Vec b) { return a * b; });
}

}  // namespace millrace::ops
