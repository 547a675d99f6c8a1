// Eight floats in an AVX2 register. The same interface as ops/common/vec_avx512.h, so that kernels
// are templates over the vector type. Vec has no linkage outside its source: neither have the
// templates instantiated with it, so the linker cannot exchange them with those of another
// instruction set. For *_avx2.cc only.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "ops/common/float_types.h"

namespace millrace::ops::avx2 {
namespace {  // what is instantiated with Vec stays in its own object file

struct Vec {
  static constexpr int64_t kWidth = 8;
  __m256 v;

  static Vec zero() { return {_mm256_setzero_ps()}; }
  static Vec set(float x) { return {_mm256_set1_ps(x)}; }

  // Pointers need no alignment.
  static Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static Vec load(const Bf16* p) { return widen_bf16(load_128(p)); }
  static Vec load(const F16* p) { return {_mm256_cvtph_ps(load_128(p))}; }
  void store(float* p) const { _mm256_storeu_ps(p, v); }
  void store(Bf16* p) const { store_128(p, to_bf16()); }
  void store(F16* p) const { store_128(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }

  /// The first n < kWidth elements, zero behind them; nothing else is read.
  static Vec load(const float* p, int64_t n) { return {_mm256_maskload_ps(p, mask(n))}; }
  template <typename Half>
  static Vec load(const Half* p, int64_t n) {
    Half all[kWidth] = {};
    for (int64_t i = 0; i < n; ++i)
      all[i] = p[i];
    return load(all);
  }
  /// The first n < kWidth elements; nothing else is written.
  void store(float* p, int64_t n) const { _mm256_maskstore_ps(p, mask(n), v); }
  template <typename Half>
  void store(Half* p, int64_t n) const {
    Half all[kWidth];
    store(all);
    for (int64_t i = 0; i < n; ++i)
      p[i] = all[i];
  }

  friend Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
  /// a * b + c and c - a * b, rounded once.
  friend Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  friend Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
  /// The second operand where one is NaN.
  friend Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
  friend Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
  friend Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
  /// |a| with the sign of b.
  friend Vec copysign(Vec a, Vec b) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(_mm256_andnot_ps(sign, a.v), _mm256_and_ps(sign, b.v))};
  }
  friend Vec round(Vec a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  /// x < y ? a : b, element by element.
  friend Vec select_less(Vec x, Vec y, Vec a, Vec b) {
    return {_mm256_blendv_ps(b.v, a.v, _mm256_cmp_ps(x.v, y.v, _CMP_LT_OQ))};
  }
  /// The first n <= kWidth elements, zero behind them.
  friend Vec first(Vec a, int64_t n) { return {_mm256_and_ps(a.v, _mm256_castsi256_ps(mask(n)))}; }
  /// a * 2^n for whole n in [-252, 254]: in two steps, so that results may be subnormal or inf.
  friend Vec scale_by_power_of_two(Vec a, Vec n) {
    const __m256i whole = _mm256_cvtps_epi32(n.v);
    const __m256i half = _mm256_srai_epi32(whole, 1);
    return {_mm256_mul_ps(_mm256_mul_ps(a.v, power_of_two(half)),
                          power_of_two(_mm256_sub_epi32(whole, half)))};
  }

  /// In a fixed order: halves onto each other.
  friend float sum(Vec a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  friend float largest(Vec a) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  /// out[i] = sum of a[i], i < 8, in one fixed order for all.
  static void store_sums(const Vec (&a)[8], float* out) {
    const __m256 low =
        _mm256_hadd_ps(_mm256_hadd_ps(a[0].v, a[1].v), _mm256_hadd_ps(a[2].v, a[3].v));
    const __m256 high =
        _mm256_hadd_ps(_mm256_hadd_ps(a[4].v, a[5].v), _mm256_hadd_ps(a[6].v, a[7].v));
    _mm256_storeu_ps(out, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                                        _mm256_permute2f128_ps(low, high, 0x31)));
  }

 private:
  static __m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static void store_128(void* p, __m128i bits) { _mm_storeu_si128(static_cast<__m128i*>(p), bits); }
  static Vec widen_bf16(__m128i bits) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
  static __m256i mask(int64_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
  }
  static __m256 power_of_two(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  /// Round to nearest, ties to even; NaN stays NaN.
  __m128i to_bf16() const {
    const __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
    const __m256i packed = _mm256_packus_epi32(high, high);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
  }
};

}  // namespace
}  // namespace millrace::ops::avx2
