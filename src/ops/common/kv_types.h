// What only the KV cache stores, besides floats: int8 with one scale for each vector of a token and
// head, and fp8 (e4m3) as it is. The conversions are the same on every device, bit for bit.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "base/host_device.h"

namespace millrace::ops {

struct KvInt8 {
  int8_t value;
};
struct KvFp8 {
  uint8_t bits;
};

template <typename T>
inline constexpr bool kHasScale = std::is_same_v<T, KvInt8>;

MILLRACE_HD inline float widen(KvInt8 x) {
  return x.value;
}

/// e4m3: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinities, all ones is NaN.
MILLRACE_HD inline float widen(KvFp8 x) {
  const uint32_t size = x.bits & 0x7fU, sign = static_cast<uint32_t>(x.bits >> 7) << 31;
  // As the top of a float the exponent is 120 too small, also where the number is subnormal.
  const float value = std::bit_cast<float>(size << 20) * 0x1p120F;
  const uint32_t bits = size == 0x7fU ? 0x7fc00000U : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | sign);
}

/// To nearest, ties to even; what is too large becomes the largest, 448.
MILLRACE_HD inline KvFp8 to_fp8(float x) {
  constexpr uint32_t kLargest = 0x7e;
  const auto all = std::bit_cast<uint32_t>(x);
  const uint32_t size = all & 0x7fffffffU, sign = all >> 31 << 7;
  uint32_t bits;
  if (size > 0x7f800000U) {
    bits = 0x7f;
  } else if (size < 0x3c800000U) {  // below 2^-6: multiples of 2^-9
    constexpr float kShift = 0x1p23F;
    bits = static_cast<uint32_t>(std::bit_cast<float>(size) * 0x1p9F + kShift - kShift);
  } else {
    const uint32_t rounded = size + 0x7ffffU + ((size >> 20) & 1);
    bits = (rounded >> 20) - (120U << 3);
    if (bits > kLargest) bits = kLargest;
  }
  return {static_cast<uint8_t>(bits | sign)};
}

/// How a vector is stored whose largest |element| is `largest`: x = value * scale. NaN and infinity
/// are in the scale.
struct Int8Scale {
  float scale, inverse;

  MILLRACE_HD explicit Int8Scale(float largest)
      : scale(largest / 127), inverse(largest > 0 ? 127 / largest : 0) {}

  MILLRACE_HD KvInt8 operator()(float x) const {
    float q = std::rint(x * inverse);
    if (!(q >= -127)) q = q < -127 ? -127.0F : 0.0F;  // NaN: 0
    if (q > 127) q = 127;
    return {static_cast<int8_t>(q)};
  }
};

/// The larger of a size so far and |x|; NaN stays.
MILLRACE_HD inline float larger_size(float largest, float x) {
  const float size = x < 0 ? -x : x;
  return size > largest || size != size ? size : largest;
}

/// A vector as the cache stores it.
inline void store_int8(const float* x, int64_t size, KvInt8* out, float* scale) {
  float largest = 0;
  for (int64_t i = 0; i < size; ++i)
    largest = larger_size(largest, x[i]);
  const Int8Scale stored(largest);
  for (int64_t i = 0; i < size; ++i)
    out[i] = stored(x[i]);
  *scale = stored.scale;
}

}  // namespace millrace::ops
