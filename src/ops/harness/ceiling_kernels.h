// The loops behind ceilings.h, for each instruction set.
#pragma once

#include <cstdint>

namespace millrace::ops {

struct CeilingKernels {
  /// Sum of `count` floats, a multiple of 256.
  float (*read)(const float* data, int64_t count);
  /// `rounds` rounds of `flops_per_round` operations on registers.
  float (*multiply_add)(int64_t rounds);
  int64_t flops_per_round;
};

CeilingKernels ceiling_kernels_cpu();
CeilingKernels ceiling_kernels_avx2();
CeilingKernels ceiling_kernels_avx512();
/// bf16 products; `read` is null.
CeilingKernels ceiling_kernels_avx512bf16();

// Stretches of memory that one thread reads side by side: more requests are on their way than with
// one (25 GB/s instead of 15 on one thread of an AMD EPYC 7003).
inline constexpr int kReadStreams = 8;
// Enough independent sums to hide the latency of a multiply-add.
inline constexpr int kFmaChains = 12;

template <typename V>
float read_streams(const float* data, int64_t count) {
  constexpr int64_t kLine = 16;  // floats
  const int64_t stream = count / kReadStreams;
  V sums[kReadStreams];
  for (V& s : sums)
    s = V::zero();
  for (int64_t i = 0; i < stream; i += kLine) {
    for (int64_t r = 0; r < kReadStreams; ++r) {
      for (int64_t k = 0; k < kLine; k += V::kWidth)
        sums[r] = sums[r] + V::load(data + r * stream + i + k);
    }
  }
  V total = V::zero();
  for (const V& s : sums)
    total = total + s;
  return sum(total);
}

template <typename V>
float multiply_add_chains(int64_t rounds) {
  V sums[kFmaChains];
  for (int k = 0; k < kFmaChains; ++k)
    sums[k] = V::set(static_cast<float>(k));
  const V a = V::set(0.999F), b = V::set(0.001F);
  for (int64_t round = 0; round < rounds; ++round) {
    for (V& s : sums)
      s = fma(s, a, b);
  }
  V total = V::zero();
  for (const V& s : sums)
    total = total + s;
  return sum(total);
}

template <typename V>
CeilingKernels make_ceiling_kernels() {
  return {read_streams<V>, multiply_add_chains<V>, 2 * kFmaChains * V::kWidth};
}

}  // namespace millrace::ops
