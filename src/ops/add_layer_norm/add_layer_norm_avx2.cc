#include "ops/add_layer_norm/add_layer_norm_simd.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops {

void add_layer_norm_avx2(const Launch& launch) {
  add_layer_norm_simd<avx2::Vec>(launch);
}

}  // namespace millrace::ops
