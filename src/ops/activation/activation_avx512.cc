#include "ops/activation/activation_simd.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void activation_avx512(const Launch& launch) {
  activation_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
