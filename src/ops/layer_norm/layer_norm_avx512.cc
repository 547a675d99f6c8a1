#include "ops/common/vec_avx512.h"
#include "ops/layer_norm/layer_norm_simd.h"

namespace millrace::ops {

void layer_norm_avx512(const Launch& launch) {
  layer_norm_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
