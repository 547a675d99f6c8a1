#include "ops/common/vec_avx512.h"
#include "ops/moe_combine/moe_combine_simd.h"

namespace millrace::ops {

void moe_combine_avx512(const Launch& launch) {
  moe_combine_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
