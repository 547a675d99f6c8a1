// What attention does with the product of a query and a key before the softmax, on every device:
//   logit = cap(scale * product) + bias,   cap(x) = softcap * tanh(x / softcap), or x
// with the bias of ALiBi (Press, Smith, Lewis: "Train short, test long", ICLR 2022), or none. T5's
// bias, which has a table, is ops/common/relative_position.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

/// ALiBi's slope of a head: 2^(-max_bias k / n) with k = 1, 2, ... n where the number of heads is a
/// power of two; else, n being the next one, first the even k, then the odd ones.
MILLRACE_HD inline float alibi_slope(int head, int heads, float max_bias) {
  int n = 1;
  while (n < heads)
    n *= 2;
  const int half = n / 2;
  const int spread = head < half ? 2 * (head + 1) : 2 * (head - half) + 1;
  const int k = n == heads ? head + 1 : spread;
  return static_cast<float>(std::exp2(-static_cast<double>(max_bias) * k / n));
}

/// To the nearest bf16, ties to even. REQUIRES: finite.
MILLRACE_HD inline float round_to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1)) & 0xffff0000u);
}

/// The logits of one head.
struct HeadLogits {
  float scale = 0;
  float softcap = 0;  // 0: none
  float slope = 0;    // of ALiBi; 0: none
  /// Falcon's ALiBi: the slope, the key's position and their product are rounded to bf16, and the
  /// bias is added before the scale.
  bool alibi_bf16 = false;

  template <typename Real>
  MILLRACE_HD Real scaled(Real product) const {
    const Real x = static_cast<Real>(scale) * product;
    return softcap > 0 ? static_cast<Real>(softcap) * std::tanh(x / static_cast<Real>(softcap)) : x;
  }
  /// ALiBi's bias, relative to that of the query's own position.
  template <typename Real>
  MILLRACE_HD Real bias(int64_t position, int64_t key) const {
    if (!alibi_bf16) return static_cast<Real>(slope) * static_cast<Real>(key - position);
    return static_cast<Real>(scale) * static_cast<Real>(rounded_bias(key) - rounded_bias(position));
  }

 private:
  MILLRACE_HD float rounded_bias(int64_t position) const {
    return round_to_bf16(round_to_bf16(slope) * round_to_bf16(static_cast<float>(position)));
  }
};

}  // namespace millrace::ops
