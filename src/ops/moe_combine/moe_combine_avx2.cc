#include "ops/common/vec_avx2.h"
#include "ops/moe_combine/moe_combine_simd.h"

namespace millrace::ops {

void moe_combine_avx2(const Launch& launch) {
  moe_combine_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
