// The arithmetic of sampling: weights as integers, so that their sums do not depend on order, and
// an exponential that is built from correctly rounded operations, so that it has the same bits on
// every device.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

inline constexpr int kWeightBits = 40;         // 2^23 tokens of weight 1 fit 63 bits
inline constexpr float kExponentMin = -29.0f;  // below, a weight rounds to 0: exp(-29) < 2^-41
inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2High = 0.693359375f;    // 10 bits: times n it is exact
inline constexpr float kLn2Low = -2.12194440e-4f;  // ln 2 - kLn2High
inline constexpr float kRoundMagic = 12582912.0f;  // 1.5 x 2^23: adding it rounds to an integer

/// The coefficients of exp's series, that of the highest power first. A function, because GPU code
/// cannot use an array of the host's.
struct ExpTerms {
  float at[8];
};
MILLRACE_HD constexpr ExpTerms exp_terms() {
  return {{1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}};
}

/// exp(y) for y <= 0, within 2 units in the last place; 0 below kExponentMin and for NaN.
/// exp(y) = 2^n exp(r), n the integer nearest to y / ln 2, |r| <= ln(2) / 2: there the series of 8
/// terms errs by 5e-9.
MILLRACE_HD inline float sampling_exp(float y) {
  if (!(y >= kExponentMin)) return 0;
  const float shifted = std::fmaf(y, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  const float r = std::fmaf(n, -kLn2Low, std::fmaf(n, -kLn2High, y));
  constexpr ExpTerms kTerms = exp_terms();
  float sum = kTerms.at[0];
  for (int i = 1; i < 8; ++i)
    sum = std::fmaf(sum, r, kTerms.at[i]);
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) << 23;  // n x 2^23, modulo 2^32
  return std::bit_cast<float>(std::bit_cast<uint32_t>(sum) + exponent);
}

/// round(w * 2^40), ties to even, for +0 <= w <= 2^11: adding 2^52 leaves the integer in the
/// mantissa. The float becomes a double, times 2^40, by moving its bits, because GPUs convert
/// slowly. (A w below 2^-126 becomes another small number, which rounds to 0 too.)
MILLRACE_HD inline uint64_t weight_units(float w) {
  constexpr double kShift = 4503599627370496.0;  // 2^52
  constexpr uint64_t kBias = uint64_t{1023 - 127 + kWeightBits} << 52;
  const double scaled = std::bit_cast<double>((uint64_t{std::bit_cast<uint32_t>(w)} << 29) + kBias);
  return std::bit_cast<uint64_t>(scaled + kShift) - std::bit_cast<uint64_t>(kShift);
}

/// Divides many numbers by one: x / divisor, correctly rounded. The product with the inverse is
/// corrected twice by the remainder, which fmaf has exactly; after the first time it is off by less
/// than one unit in the last place, the second time rounds it as the division does. Where exponents
/// are extreme, and remainders could be lost, it divides.
class Divider {
 public:
  explicit MILLRACE_HD Divider(float divisor)
      : divisor_(divisor),
        inverse_(1 / divisor),
        least_(divisor >= 0x1p-40F && divisor <= 0x1p40F ? 0x1p-60F : __builtin_inff()) {}

  MILLRACE_HD float operator()(float x) const {
    const float size = std::fabs(x);
    if (!(size >= least_ && size <= 0x1p60F)) return x / divisor_;
    float quotient = x * inverse_;
    quotient = std::fmaf(std::fmaf(-quotient, divisor_, x), inverse_, quotient);
    return std::fmaf(std::fmaf(-quotient, divisor_, x), inverse_, quotient);
  }

 private:
  float divisor_, inverse_;
  float least_;  // |x| that is not extreme
};

/// Unsigned integers in the order of the floats; -0 and 0 are equal. REQUIRES: not NaN.
MILLRACE_HD inline uint32_t ordered_key(float x) {
  const auto bits = std::bit_cast<uint32_t>(x + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

/// The float with this ordered_key; 0 for that of the zeros.
MILLRACE_HD inline float float_of_key(uint32_t key) {
  return std::bit_cast<float>((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

/// What top_p drops at most, in units: (1 - top_p) of `total`, never all.
MILLRACE_HD inline uint64_t units_to_drop(float top_p, uint64_t total) {
  const double share = (1.0 - static_cast<double>(top_p)) * static_cast<double>(total);
  const auto units = static_cast<uint64_t>(share);
  return units < total ? units : total - 1;
}

/// What typical_p keeps at least, in units; at least 1, at most `total`.
MILLRACE_HD inline uint64_t units_to_keep(float mass, uint64_t total) {
  const double share = std::ceil(static_cast<double>(mass) * static_cast<double>(total));
  const auto units = static_cast<uint64_t>(share);
  return units < 1 ? 1 : units < total ? units : total;
}

/// One token's part in the mean of -y weighted by w, in units.
MILLRACE_HD inline uint64_t surprise_units(float y, float w) {
  return w > 0 ? weight_units(w * std::fabs(y)) : 0;
}

/// The mean of y from the sums of surprise_units and of weight_units.
MILLRACE_HD inline float mean_of_units(uint64_t surprise, uint64_t total) {
  return -static_cast<float>(static_cast<double>(surprise) / static_cast<double>(total));
}

}  // namespace millrace::ops
