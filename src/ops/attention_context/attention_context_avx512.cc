#include "ops/attention_context/attention_context_simd.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/kv_vec_avx512.h"

namespace millrace::ops {

void attention_context_avx512(const Launch& launch) {
  attention_context_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
