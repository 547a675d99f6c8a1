#include "ops/common/vec_avx512.h"
#include "ops/rescale/rescale_simd.h"

namespace millrace::ops {

void rescale_avx512(const Launch& launch) {
  rescale_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
