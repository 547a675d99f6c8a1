#include "ops/attention_generation/attention_generation_simd.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/kv_vec_avx2.h"

namespace millrace::ops {

void attention_generation_avx2(const Launch& launch) {
  attention_generation_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
