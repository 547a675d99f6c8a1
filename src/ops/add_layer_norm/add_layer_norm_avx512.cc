#include "ops/add_layer_norm/add_layer_norm_simd.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops {

void add_layer_norm_avx512(const Launch& launch) {
  add_layer_norm_simd<avx512::Vec>(launch);
}

}  // namespace millrace::ops
