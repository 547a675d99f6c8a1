#include <algorithm>
#include <cmath>

#include "ops/common/sampling_kernels.h"
#include "ops/common/sampling_math.h"

namespace millrace::ops {
namespace {

bool block_maxima(const float* x, int64_t count, float* maxima) {
  bool has_nan = false;
  for (int64_t begin = 0; begin < count; begin += kSamplingBlock) {
    const int64_t end = std::min(count, begin + kSamplingBlock);
    float best = x[begin];
    for (int64_t i = begin; i < end; ++i) {
      has_nan |= std::isnan(x[i]);
      best = x[i] > best ? x[i] : best;
    }
    *maxima++ = best;
  }
  return !has_nan;
}

uint64_t sum_units(const float* x, int64_t count, float temperature, float max) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += weight_units(sampling_exp(x[i] / temperature - max));
  return sum;
}

void weights(const float* s, int64_t count, float max, float* w) {
  for (int64_t i = 0; i < count; ++i)
    w[i] = sampling_exp(s[i] - max);
}

}  // namespace

const SamplingKernels& sampling_kernels_cpu() {
  static constexpr SamplingKernels kKernels = {block_maxima, sum_units, weights};
  return kKernels;
}

}  // namespace millrace::ops
