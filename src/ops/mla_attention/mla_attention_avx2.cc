#include "ops/common/vec_avx2.h"
#include "ops/mla_attention/mla_attention_simd.h"

namespace millrace::ops {

void mla_attention_avx2(const Launch& launch) {
  mla_attention_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
