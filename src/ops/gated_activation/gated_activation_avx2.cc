#include "ops/common/vec_avx2.h"
#include "ops/gated_activation/gated_activation_simd.h"

namespace millrace::ops {

void gated_activation_avx2(const Launch& launch) {
  gated_activation_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
