#include "ops/activation/activation_simd.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void activation_avx2(const Launch& launch) {
  activation_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
