#include "ops/common/sampling_math.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "device/device.h"
#include "ops/common/sampling_kernels.h"
#include "ops/common/sampling_testing.h"

namespace millrace::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SamplingMath, ExponentialIsWithinTwoUlps) {
  double worst = 0;
  for (int i = 0; i <= 2'900'000; ++i) {
    const float y = -static_cast<float>(i) * 1e-5f;
    const double exact = std::exp(static_cast<double>(y));
    const auto rounded = static_cast<float>(exact);
    const double ulp = std::nextafter(rounded, kInfinity) - rounded;
    worst = std::max(worst, std::fabs(sampling_exp(y) - exact) / ulp);
  }
  EXPECT_LT(worst, 2.0);
  EXPECT_GT(worst, 0.4);  // nobody rounds better: the loop does measure
}

TEST(SamplingMath, ExponentialAtTheEnds) {
  EXPECT_EQ(sampling_exp(0.0f), 1.0f);
  EXPECT_EQ(sampling_exp(-0.0f), 1.0f);
  EXPECT_LE(sampling_exp(-1e-7f), 1.0f);
  EXPECT_EQ(sampling_exp(-kInfinity), 0.0f);
  EXPECT_EQ(sampling_exp(-29.001f), 0.0f);
  EXPECT_EQ(weight_units(sampling_exp(kExponentMin)), 0u);  // so the cut is no step
}

TEST(SamplingMath, UnitsRoundToNearest) {
  EXPECT_EQ(weight_units(1.0f), uint64_t{1} << 40);
  EXPECT_EQ(weight_units(0.0f), 0u);
  EXPECT_EQ(weight_units(std::ldexp(1.0f, -40)), 1u);
  EXPECT_EQ(weight_units(std::ldexp(1.25f, -41)), 1u);  // 0.625
  EXPECT_EQ(weight_units(std::ldexp(1.0f, -41)), 0u);   // 0.5: to even
  EXPECT_EQ(weight_units(std::ldexp(3.0f, -41)), 2u);   // 1.5: to even
}

TEST(SamplingMath, UnitsAreThoseOfDoubles) {
  std::mt19937 random(1);
  for (int i = 0; i < 1'000'000; ++i) {
    const float w =
        std::bit_cast<float>(static_cast<uint32_t>(random()) % std::bit_cast<uint32_t>(2048.0f));
    ASSERT_EQ(weight_units(w), static_cast<uint64_t>(std::nearbyint(std::ldexp(double{w}, 40))));
  }
}

TEST(SamplingMath, SurpriseOfTheBestIsNothing) {
  EXPECT_EQ(surprise_units(0.0f, 1.0f), 0u);
  EXPECT_EQ(surprise_units(-1.0f, 1.0f), uint64_t{1} << 40);
}

TEST(SamplingMath, DividerRoundsAsDivision) {
  std::mt19937 random(2);
  const auto any_float = [&] { return std::bit_cast<float>(static_cast<uint32_t>(random())); };
  std::vector<float> divisors = {1.0f, 0.7f, 1e-5f, 0x1.fffffep0f, 0x1.000002p0f, 3e-39f, 3e38f};
  std::uniform_real_distribution<float> mantissa(0.5f, 1.0f);
  for (int i = 0; i < 1000; ++i)
    divisors.push_back(std::ldexp(mantissa(random), i % 8 - 4));
  for (const float divisor : divisors) {
    const Divider divide(divisor);
    for (int i = 0; i < 3000; ++i) {
      const float x = any_float();
      if (std::isnan(x)) continue;
      ASSERT_EQ(divide(x), x / divisor) << x << " / " << divisor;
      const float near = std::nextafter(static_cast<float>(i) * divisor, kInfinity);
      ASSERT_EQ(divide(near), near / divisor) << near << " / " << divisor;
    }
    EXPECT_EQ(divide(-kInfinity), -kInfinity);
  }
}

TEST(SamplingMath, KeysOrderAsFloats) {
  const std::vector<float> rising = {-kInfinity, -3e38f, -1.0f, -1e-40f,  0.0f,
                                     1e-40f,     1.0f,   3e38f, kInfinity};
  for (size_t i = 1; i < rising.size(); ++i)
    EXPECT_LT(ordered_key(rising[i - 1]), ordered_key(rising[i])) << i;
  EXPECT_EQ(ordered_key(-0.0f), ordered_key(0.0f));
}

TEST(SamplingMath, MassLimitsStayInside) {
  EXPECT_EQ(units_to_drop(0.0f, 1000), 999u);
  EXPECT_EQ(units_to_drop(1.0f, 1000), 0u);
  EXPECT_EQ(units_to_drop(0.25f, 1000), 750u);
  const uint64_t huge = (uint64_t{1} << 62) + 1;  // rounds up as a double
  EXPECT_LT(units_to_drop(0.0f, huge), huge);
  EXPECT_EQ(units_to_keep(0.5f, 1001), 501u);
  EXPECT_EQ(units_to_keep(1e-30f, 1000), 1u);
  EXPECT_LE(units_to_keep(0.99999999f, huge), huge);
}

#ifdef __x86_64__
TEST(SamplingKernels, Avx2GivesTheSameBits) {
  if (device::make_cpu_device(1)->properties().isa < device::CpuIsa::kAvx2) {
    GTEST_SKIP() << "this processor has no AVX2";
  }
  const SamplingKernels& scalar = sampling_kernels_cpu();
  const SamplingKernels& vector = sampling_kernels_avx2();
  for (const int64_t count : {1, 7, 8, 9, 63, 64, 65, 127, 1000, 4099}) {
    std::vector<float> x = golden_logits(count, count, 32, 0);
    if (count > 5) x[4] = -kInfinity;
    const float max = *std::max_element(x.begin(), x.end());
    for (const float temperature : {0.1f, 1.0f, 1.7f}) {
      const float top = max / temperature;
      EXPECT_EQ(scalar.sum_units(x.data(), count, temperature, top),
                vector.sum_units(x.data(), count, temperature, top));
    }
    std::vector<float> a(static_cast<size_t>(count)), b(a);
    scalar.weights(x.data(), count, max, a.data());
    vector.weights(x.data(), count, max, b.data());
    EXPECT_EQ(a, b);
    EXPECT_TRUE(scalar.block_maxima(x.data(), count, a.data()));
    EXPECT_TRUE(vector.block_maxima(x.data(), count, b.data()));
    EXPECT_EQ(a, b);
    x.back() = NAN;
    EXPECT_FALSE(scalar.block_maxima(x.data(), count, a.data()));
    EXPECT_FALSE(vector.block_maxima(x.data(), count, b.data()));
  }
}
#endif

}  // namespace
}  // namespace millrace::ops
