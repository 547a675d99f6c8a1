#include "ops/common/vec_avx2.h"
#include "ops/layer_norm/layer_norm_simd.h"

namespace millrace::ops {

void layer_norm_avx2(const Launch& launch) {
  layer_norm_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
