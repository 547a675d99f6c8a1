#include "ops/common/vec_avx512.h"
#include "ops/gated_activation/gated_activation_simd.h"

namespace millrace::ops {

void gated_activation_avx512(const Launch& launch) {
  gated_activation_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
