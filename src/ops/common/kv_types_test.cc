#include "ops/common/kv_types.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "ir/dtype.h"

namespace millrace::ops {
namespace {

TEST(KvFp8, IsTheFormatOfCheckpoints) {
  for (int bits = 0; bits < 256; ++bits) {
    const auto byte = static_cast<uint8_t>(bits);
    const float expected = ir::f8e4m3_to_float(byte), got = widen(KvFp8{byte});
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(got)) << bits;
      EXPECT_TRUE(std::isnan(widen(to_fp8(expected))));
      continue;
    }
    EXPECT_EQ(got, expected) << bits;
    EXPECT_EQ(to_fp8(expected).bits, byte);
  }
}

// Between two neighbours the nearer one, in the middle the even one.
TEST(KvFp8, RoundsToNearest) {
  for (int bits = 0; bits < 0x7e; ++bits) {
    const auto low = static_cast<uint8_t>(bits), high = static_cast<uint8_t>(bits + 1);
    const float a = ir::f8e4m3_to_float(low), b = ir::f8e4m3_to_float(high);
    const float middle = (a + b) / 2;
    EXPECT_EQ(to_fp8(std::nextafter(middle, 0.0F)).bits, low);
    EXPECT_EQ(to_fp8(std::nextafter(middle, 500.0F)).bits, high);
    EXPECT_EQ(to_fp8(middle).bits, low % 2 == 0 ? low : high);
    EXPECT_EQ(to_fp8(-middle).bits, 0x80 | (low % 2 == 0 ? low : high));
  }
  for (const float large :
       {448.0F, 449.0F, 470.0F, 1e30F, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(widen(to_fp8(large)), 448.0F);
    EXPECT_EQ(widen(to_fp8(-large)), -448.0F);
  }
}

TEST(KvInt8, KeepsTheLargestAndIsHalfAStepOffAtMost) {
  std::vector<float> x;
  for (int i = 0; i < 50; ++i)
    x.push_back(3.7F * std::sin(static_cast<float>(i) * 1.7F));
  x.push_back(-4.2F);
  std::vector<KvInt8> stored(x.size());
  float scale = 0;
  store_int8(x.data(), static_cast<int64_t>(x.size()), stored.data(), &scale);
  EXPECT_FLOAT_EQ(scale, 4.2F / 127);
  EXPECT_EQ(stored.back().value, -127);
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(widen(stored[i]) * scale, x[i], scale * 0.5001F);
}

TEST(KvInt8, ZerosAndWhatIsNoNumber) {
  const float zeros[] = {0, -0.0F, 0}, tiny[] = {0, 1e-44F, -3e-45F};
  const float broken[] = {1, std::numeric_limits<float>::quiet_NaN(), 5};
  const float endless[] = {1, -std::numeric_limits<float>::infinity(), 5};
  KvInt8 stored[3];
  float scale = -1;
  store_int8(zeros, 3, stored, &scale);
  for (const KvInt8 x : stored)
    EXPECT_EQ(widen(x) * scale, 0);
  store_int8(tiny, 3, stored, &scale);
  for (const KvInt8 x : stored)
    EXPECT_LT(std::abs(widen(x) * scale), 1e-42F);
  for (const auto* bad : {broken, endless}) {
    store_int8(bad, 3, stored, &scale);
    EXPECT_FALSE(std::isfinite(scale));
  }
}

}  // namespace
}  // namespace millrace::ops
