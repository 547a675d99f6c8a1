#include "ops/attention_cross/attention_cross_simd.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void attention_cross_avx2(const Launch& launch) {
  attention_cross_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
