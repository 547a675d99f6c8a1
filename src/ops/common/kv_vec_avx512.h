// Sixteen elements of an 8-bit KV cache as floats: see ops/common/kv_vec_avx2.h. For *_avx512.cc
// only.
#pragma once

#include "ops/common/kv_types.h"
#include "ops/common/vec_avx512.h"

namespace millrace::ops::avx512 {
namespace {

inline void widen_all(const KvInt8* p, Vec* to) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  *to = {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}

/// widen(KvFp8), sixteen times.
inline void widen_all(const KvFp8* p, Vec* to) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m512i bits = _mm512_cvtepu8_epi32(bytes), all_ones = _mm512_set1_epi32(0x7f);
  const __m512i size = _mm512_and_si512(bits, all_ones);
  const __m512i sign = _mm512_slli_epi32(_mm512_andnot_si512(all_ones, bits), 24);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(size, all_ones);
  const __m512 value =
      _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(size, 20)), _mm512_set1_ps(0x1p120F));
  const __m512i finite = _mm512_or_si512(_mm512_castps_si512(value), sign);
  *to = {_mm512_castsi512_ps(_mm512_mask_mov_epi32(finite, nan, _mm512_set1_epi32(0x7fc00000)))};
}

}  // namespace
}  // namespace millrace::ops::avx512
