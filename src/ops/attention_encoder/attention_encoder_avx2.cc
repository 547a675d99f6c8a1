#include "ops/attention_encoder/attention_encoder_simd.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void attention_encoder_avx2(const Launch& launch) {
  attention_encoder_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
