#include "ops/add_rms_norm/add_rms_norm_simd.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void add_rms_norm_avx512(const Launch& launch) {
  add_rms_norm_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
