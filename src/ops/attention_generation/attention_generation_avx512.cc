#include "ops/attention_generation/attention_generation_simd.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/kv_vec_avx512.h"

namespace millrace::ops {

void attention_generation_avx512(const Launch& launch) {
  attention_generation_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
