#include "ops/common/vec_avx2.h"
#include "ops/rms_norm/rms_norm_simd.h"

namespace millrace::ops {

void rms_norm_avx2(const Launch& launch) {
  rms_norm_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
