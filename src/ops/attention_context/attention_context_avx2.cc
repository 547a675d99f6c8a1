#include "ops/attention_context/attention_context_simd.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/kv_vec_avx2.h"

namespace millrace::ops {

void attention_context_avx2(const Launch& launch) {
  attention_context_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
