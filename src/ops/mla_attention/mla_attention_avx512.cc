#include "ops/common/vec_avx512.h"
#include "ops/mla_attention/mla_attention_simd.h"

namespace millrace::ops {

void mla_attention_avx512(const Launch& launch) {
  mla_attention_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
