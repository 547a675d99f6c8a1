// Eight elements of an 8-bit KV cache as floats: what ops/common/kv_elements.h asks of an
// instruction set. For *_avx2.cc only.
#pragma once

#include "ops/common/kv_types.h"
#include "ops/common/vec_avx2.h"

namespace millrace::ops::avx2 {
namespace {

inline void widen_all(const KvInt8* p, Vec* to) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  *to = {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes))};
}

/// widen(KvFp8), eight times.
inline void widen_all(const KvFp8* p, Vec* to) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const __m256i bits = _mm256_cvtepu8_epi32(bytes), all_ones = _mm256_set1_epi32(0x7f);
  const __m256i size = _mm256_and_si256(bits, all_ones);
  const __m256i sign = _mm256_slli_epi32(_mm256_andnot_si256(all_ones, bits), 24);
  const __m256i nan =
      _mm256_and_si256(_mm256_cmpeq_epi32(size, all_ones), _mm256_set1_epi32(0x7fc00000));
  const __m256 value =
      _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(size, 20)), _mm256_set1_ps(0x1p120F));
  *to = {_mm256_or_ps(value, _mm256_castsi256_ps(_mm256_or_si256(sign, nan)))};
}

}  // namespace
}  // namespace millrace::ops::avx2
