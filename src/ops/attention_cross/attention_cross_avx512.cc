#include "ops/attention_cross/attention_cross_simd.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void attention_cross_avx512(const Launch& launch) {
  attention_cross_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
