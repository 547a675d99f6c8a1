#include "ops/common/vec_avx2.h"
#include "ops/rope_append/rope_append_simd.h"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {

void rope_append_avx2(const Launch& launch) {
  rope_append_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
