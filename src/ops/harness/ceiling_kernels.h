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

// Enough independent sums to hide the latency of an addition or multiply-add.
inline constexpr int kReadChains = 8;
inline constexpr int kFmaChains = 12;

template <typename V>
float read_stream(const float* data, int64_t count) {
  constexpr int64_t kStep = kReadChains * V::kWidth;
  constexpr int64_t kAhead = 1024;  // floats; hardware prefetchers stop at the end of each page
  V sums[kReadChains];
  for (V& s : sums)
    s = V::zero();
  for (int64_t i = 0; i < count; i += kStep) {
    for (int64_t line = 0; line < kStep; line += 16)
      __builtin_prefetch(data + i + kAhead + line);
    for (int64_t k = 0; k < kReadChains; ++k)
      sums[k] = sums[k] + V::load(data + i + k * V::kWidth);
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
  return {read_stream<V>, multiply_add_chains<V>, 2 * kFmaChains * V::kWidth};
}

}  // namespace millrace::ops
