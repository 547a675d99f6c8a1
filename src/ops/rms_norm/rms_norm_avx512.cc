#include "ops/common/vec_avx512.h"
#include "ops/rms_norm/rms_norm_simd.h"

namespace millrace::ops {

void rms_norm_avx512(const Launch& launch) {
  rms_norm_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
