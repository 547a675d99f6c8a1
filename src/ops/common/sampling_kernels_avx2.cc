// As sampling_kernels_cpu.cc, 8 tokens at a time: the same operations in the same order per token.
// Nothing inline from other headers is called here, so that no code with AVX2 in it can be linked
// into the scalar path; the tail of a row goes through a padded copy.
#include <immintrin.h>

#include "ops/common/sampling_kernels.h"
#include "ops/common/sampling_math.h"

namespace millrace::ops {
namespace {

constexpr int kLanes = 8;
constexpr ExpTerms kTerms = exp_terms();

/// The last `count` < 8 elements, padded with -infinity: its weight is 0, and it is no maximum.
__m256 load_tail(const float* x, int64_t count) {
  alignas(32) float padded[kLanes];
  _mm256_store_ps(padded, _mm256_set1_ps(-__builtin_inff()));
  for (int64_t i = 0; i < count; ++i)
    padded[i] = x[i];
  return _mm256_load_ps(padded);
}

float horizontal_max(__m256 v) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}

__m256 exponential(__m256 y) {
  const __m256 shifted = _mm256_fmadd_ps(y, _mm256_set1_ps(kLog2E), _mm256_set1_ps(kRoundMagic));
  const __m256 n = _mm256_sub_ps(shifted, _mm256_set1_ps(kRoundMagic));
  const __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-kLn2Low),
                                   _mm256_fmadd_ps(n, _mm256_set1_ps(-kLn2High), y));
  __m256 sum = _mm256_set1_ps(kTerms.at[0]);
  for (int i = 1; i < 8; ++i)
    sum = _mm256_fmadd_ps(sum, r, _mm256_set1_ps(kTerms.at[i]));
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  const __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(sum), exponent));
  return _mm256_and_ps(scaled, _mm256_cmp_ps(y, _mm256_set1_ps(kExponentMin), _CMP_GE_OQ));
}

/// Sums of weight_units in 4 lanes, each 2^52's bits too large per addition.
__m256i add_units(__m256i sum, __m128 w) {
  const __m256d scale = _mm256_set1_pd(static_cast<double>(int64_t{1} << kWeightBits));
  const __m256d shift = _mm256_set1_pd(4503599627370496.0);  // 2^52
  const __m256d bits = _mm256_fmadd_pd(_mm256_cvtps_pd(w), scale, shift);
  return _mm256_add_epi64(sum,
                          _mm256_sub_epi64(_mm256_castpd_si256(bits), _mm256_castpd_si256(shift)));
}

bool block_maxima(const float* x, int64_t count, float* maxima) {
  __m256 nan = _mm256_setzero_ps();
  for (int64_t begin = 0; begin < count; begin += kSamplingBlock) {
    const int64_t end = begin + kSamplingBlock < count ? begin + kSamplingBlock : count;
    __m256 best = _mm256_set1_ps(-__builtin_inff());
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      const __m256 v = _mm256_loadu_ps(x + i);
      nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
      best = _mm256_max_ps(best, v);
    }
    if (i < end) {
      const __m256 v = load_tail(x + i, end - i);
      nan = _mm256_or_ps(nan, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
      best = _mm256_max_ps(best, v);
    }
    *maxima++ = horizontal_max(best);
  }
  return _mm256_movemask_ps(nan) == 0;
}

uint64_t sum_units(const float* x, int64_t count, float temperature, float max) {
  const __m256 divisor = _mm256_set1_ps(temperature), offset = _mm256_set1_ps(max);
  __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m256 v = i + kLanes <= count ? _mm256_loadu_ps(x + i) : load_tail(x + i, count - i);
    const __m256 w = exponential(_mm256_sub_ps(_mm256_div_ps(v, divisor), offset));
    low = add_units(low, _mm256_castps256_ps128(w));
    high = add_units(high, _mm256_extractf128_ps(w, 1));
  }
  alignas(32) uint64_t lanes[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_add_epi64(low, high));
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

void weights(const float* s, int64_t count, float max, float* w) {
  const __m256 offset = _mm256_set1_ps(max);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    _mm256_storeu_ps(w + i, exponential(_mm256_sub_ps(_mm256_loadu_ps(s + i), offset)));
  if (i == count) return;
  alignas(32) float tail[kLanes];
  _mm256_store_ps(tail, exponential(_mm256_sub_ps(load_tail(s + i, count - i), offset)));
  for (int64_t j = 0; i + j < count; ++j)
    w[i + j] = tail[j];
}

}  // namespace

const SamplingKernels& sampling_kernels_avx2() {
  static constexpr SamplingKernels kKernels = {block_maxima, sum_units, weights};
  return kKernels;
}

}  // namespace millrace::ops
