#include "ops/common/vec_avx512.h"
#include "ops/rope_append/rope_append_simd.h"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {

void rope_append_avx512(const Launch& launch) {
  rope_append_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
