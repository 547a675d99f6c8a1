// Sixteen floats in an AVX-512 register: the interface of ops/common/vec_avx2.h, which says what
// each function does. For *_avx512.cc and *_avx512bf16.cc only.
#pragma once

#include <cstdint>

#include <immintrin.h>

#include "ops/common/float_types.h"

namespace millrace::ops::avx512 {
namespace {  // what is instantiated with Vec stays in its own object file

struct Vec {
  static constexpr int64_t kWidth = 16;
  __m512 v;

  static Vec zero() { return {_mm512_setzero_ps()}; }
  static Vec set(float x) { return {_mm512_set1_ps(x)}; }

  static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static Vec load(const Bf16* p) { return widen_bf16(_mm256_loadu_epi16(p)); }
  static Vec load(const F16* p) { return {_mm512_cvtph_ps(_mm256_loadu_epi16(p))}; }
  void store(float* p) const { _mm512_storeu_ps(p, v); }
  void store(Bf16* p) const { _mm256_storeu_epi16(p, to_bf16()); }
  void store(F16* p) const { _mm256_storeu_epi16(p, to_f16()); }

  static Vec load(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(mask(n), p)}; }
  static Vec load(const Bf16* p, int64_t n) {
    return widen_bf16(_mm256_maskz_loadu_epi16(mask(n), p));
  }
  static Vec load(const F16* p, int64_t n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(n), p))};
  }
  void store(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, mask(n), v); }
  void store(Bf16* p, int64_t n) const { _mm256_mask_storeu_epi16(p, mask(n), to_bf16()); }
  void store(F16* p, int64_t n) const { _mm256_mask_storeu_epi16(p, mask(n), to_f16()); }

  friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  friend Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
  friend Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  friend Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  friend Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
  friend Vec copysign(Vec a, Vec b) {
    const __m512 sign = _mm512_set1_ps(-0.0f);
    return {_mm512_or_ps(_mm512_andnot_ps(sign, a.v), _mm512_and_ps(sign, b.v))};
  }
  friend Vec round(Vec a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  friend Vec select_less(Vec x, Vec y, Vec a, Vec b) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
  }
  friend Vec first(Vec a, int64_t n) { return {_mm512_maskz_mov_ps(mask(n), a.v)}; }
  friend Vec scale_by_power_of_two(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

  friend float sum(Vec a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  friend float largest(Vec a) { return _mm512_reduce_max_ps(a.v); }
  static void store_sums(const Vec (&a)[8], float* out) {
    const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(half_sum(a[0]), half_sum(a[1])),
                                      _mm256_hadd_ps(half_sum(a[2]), half_sum(a[3])));
    const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(half_sum(a[4]), half_sum(a[5])),
                                       _mm256_hadd_ps(half_sum(a[6]), half_sum(a[7])));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                        _mm256_permute2f128_ps(low, high, 0x31)));
  }

 private:
  static __m256 half_sum(Vec a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  }
  static Vec widen_bf16(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
  static __mmask16 mask(int64_t n) { return static_cast<__mmask16>((1U << n) - 1); }
  __m256i to_f16() const { return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT); }
  __m256i to_bf16() const {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i quiet = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(quiet, 16));
  }
};

}  // namespace
}  // namespace millrace::ops::avx512
