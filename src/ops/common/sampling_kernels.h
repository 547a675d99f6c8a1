// The inner loops over the vocabulary, per instruction set. All sets return the same bits.
#pragma once

#include <cstdint>

namespace millrace::ops {

inline constexpr int kSamplingBlock = 64;  // tokens whose maximum is kept

struct SamplingKernels {
  /// maxima[b] = max of x[64 b ...]; false when a NaN is among the x.
  bool (*block_maxima)(const float* x, int64_t count, float* maxima);
  /// Sum of weight_units(sampling_exp(x / temperature - max)).
  uint64_t (*sum_units)(const float* x, int64_t count, float temperature, float max);
  /// w[i] = sampling_exp(s[i] - max).
  void (*weights)(const float* s, int64_t count, float max, float* w);
};

const SamplingKernels& sampling_kernels_cpu();
#ifdef __x86_64__
const SamplingKernels& sampling_kernels_avx2();  // REQUIRES: CpuIsa::kAvx2
#endif

}  // namespace millrace::ops
