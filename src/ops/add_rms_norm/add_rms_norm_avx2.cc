#include "ops/add_rms_norm/add_rms_norm_simd.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void add_rms_norm_avx2(const Launch& launch) {
  add_rms_norm_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
