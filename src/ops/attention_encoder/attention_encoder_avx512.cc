#include "ops/attention_encoder/attention_encoder_simd.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void attention_encoder_avx512(const Launch& launch) {
  attention_encoder_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
