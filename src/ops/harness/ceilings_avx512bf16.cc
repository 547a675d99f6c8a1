#include "ops/common/vec_avx512.h"
#include "ops/harness/ceiling_kernels.h"

namespace millrace::ops {
namespace {

float product_chains(int64_t rounds) {
  avx512::Vec sums[kFmaChains];
  for (int k = 0; k < kFmaChains; ++k)
    sums[k] = avx512::Vec::set(static_cast<float>(k));
  const __m512 tiny = _mm512_set1_ps(1e-3F);
  const __m512bh a = _mm512_cvtne2ps_pbh(tiny, tiny);
  for (int64_t round = 0; round < rounds; ++round) {
    for (avx512::Vec& s : sums)
      s.v = _mm512_dpbf16_ps(s.v, a, a);
  }
  avx512::Vec total = avx512::Vec::zero();
  for (const avx512::Vec& s : sums)
    total = total + s;
  return sum(total);
}

}  // namespace

CeilingKernels ceiling_kernels_avx512bf16() {
  constexpr int64_t kProducts = 32;  // of one instruction
  return {nullptr, product_chains, int64_t{2} * kFmaChains * kProducts};
}

}  // namespace millrace::ops
