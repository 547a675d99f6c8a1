#include "ops/common/vec_avx2.h"
#include "ops/rescale/rescale_simd.h"

namespace millrace::ops {

void rescale_avx2(const Launch& launch) {
  rescale_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
