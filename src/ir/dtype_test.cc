// Conversions against the formats' definitions: values of codes are computed from sign, exponent
// and fraction in double, roundings from the neighbours of exact midpoints.
#include "ir/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace millrace::ir {
namespace {

struct Format {
  int fraction_bits, bias, exponent_max;  // the exponent field of infinities and NaN
};
constexpr Format kHalf = {10, 15, 31};
constexpr Format kBrain = {7, 127, 255};

// REQUIRES: a finite positive code.
double value_of(const Format& format, int code) {
  const int exponent = code >> format.fraction_bits;
  const int fraction = code & ((1 << format.fraction_bits) - 1);
  if (exponent == 0) return std::ldexp(fraction, 1 - format.bias - format.fraction_bits);
  return std::ldexp(fraction + (1 << format.fraction_bits),
                    exponent - format.bias - format.fraction_bits);
}

// Every finite code comes back, midpoints go to the even code, their neighbours to the nearer one.
void check_rounding(const Format& format, uint16_t (*narrow)(float), float (*widen)(uint16_t)) {
  const int infinity = format.exponent_max << format.fraction_bits;
  for (int code = 0; code < infinity; ++code) {
    const double value = value_of(format, code);
    const auto bits = static_cast<uint16_t>(code);
    const auto negative = static_cast<uint16_t>(code | 0x8000);
    ASSERT_EQ(widen(bits), value) << code;
    ASSERT_EQ(widen(negative), -value) << code;
    ASSERT_EQ(narrow(static_cast<float>(value)), bits);
    ASSERT_EQ(narrow(-static_cast<float>(value)), negative);

    // The code after the largest finite one stands for the power of two that it would have.
    const auto middle = static_cast<float>((value + value_of(format, code + 1)) / 2);
    const int even = code % 2 == 0 ? code : code + 1;
    const float below = std::nextafter(middle, 0.0f);
    const float above = std::nextafter(middle, std::numeric_limits<float>::infinity());
    ASSERT_EQ(narrow(middle), even) << code;
    ASSERT_EQ(narrow(below), code);
    ASSERT_EQ(narrow(above), code + 1);
    ASSERT_EQ(narrow(-above), (code + 1) | 0x8000);
  }
  const float huge = std::numeric_limits<float>::infinity();
  EXPECT_EQ(narrow(huge), infinity);
  EXPECT_EQ(narrow(-huge), infinity | 0x8000);
  EXPECT_EQ(narrow(std::numeric_limits<float>::max()), infinity);
  EXPECT_EQ(widen(static_cast<uint16_t>(infinity)), huge);
  // NaN whose payload lies only in the bits that are cut off must not become an infinity.
  EXPECT_TRUE(std::isnan(widen(narrow(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(widen(narrow(std::bit_cast<float>(0xffffffffu)))));
}

TEST(DType, HalfRoundsToNearestEven) {
  check_rounding(kHalf, float_to_f16, f16_to_float);
}

TEST(DType, BrainFloatRoundsToNearestEven) {
  check_rounding(kBrain, float_to_bf16, bf16_to_float);
}

TEST(DType, TinyFloatsGoToZeroWithTheirSign) {
  EXPECT_EQ(float_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f16(-std::numeric_limits<float>::denorm_min()), 0x8000);
  EXPECT_EQ(float_to_bf16(-0.0f), 0x8000);
}

// E5M2 is the upper byte of an f16.
TEST(DType, E5M2IsHalfCutShort) {
  for (int code = 0; code < 256; ++code) {
    const float wide = f16_to_float(static_cast<uint16_t>(code << 8));
    const float got = f8e5m2_to_float(static_cast<uint8_t>(code));
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(got)) << code;
    } else {
      EXPECT_EQ(got, wide) << code;
      EXPECT_EQ(std::signbit(got), std::signbit(wide)) << code;
    }
  }
}

// E4M3 ("fn": no infinities): from 0, each code adds the step of its binade, up to 448.
TEST(DType, E4M3StepsThroughItsBinades) {
  double value = 0;
  for (int code = 0; code < 127; ++code) {
    EXPECT_EQ(f8e4m3_to_float(static_cast<uint8_t>(code)), value) << code;
    EXPECT_EQ(f8e4m3_to_float(static_cast<uint8_t>(code | 0x80)), -value) << code;
    value += std::ldexp(1.0, std::max(code >> 3, 1) - 7 - 3);
  }
  EXPECT_EQ(f8e4m3_to_float(0x7e), 448.0f);
  EXPECT_EQ(f8e4m3_to_float(0x38), 1.0f);
  EXPECT_TRUE(std::isnan(f8e4m3_to_float(0x7f)));
  EXPECT_TRUE(std::isnan(f8e4m3_to_float(0xff)));
}

TEST(DType, ConvertsArrays) {
  const std::vector<double> wide = {1.5, -2.0, 1.0 / 3.0};
  std::vector<uint16_t> half(3), brain(3);
  convert(DType::kF64, wide.data(), DType::kF16, half.data(), 3);
  EXPECT_EQ(half, (std::vector<uint16_t>{0x3e00, 0xc000, 0x3555}));
  convert(DType::kF16, half.data(), DType::kBF16, brain.data(), 3);
  EXPECT_EQ(brain, (std::vector<uint16_t>{0x3fc0, 0xc000, 0x3eab}));
  std::vector<float> back(3);
  convert(DType::kBF16, brain.data(), DType::kF32, back.data(), 3);
  EXPECT_EQ(back, (std::vector<float>{1.5f, -2.0f, 0.333984375f}));
}

// Many at once, as the compiler arranges that, are each what it is alone. A prime number of them.
TEST(DType, ConvertsLongArraysAsOneByOne) {
  std::vector<float> wide(10'007);
  for (size_t i = 0; i < wide.size(); ++i)
    wide[i] = std::bit_cast<float>(static_cast<uint32_t>(i * 0x9e3779b9u));  // NaN and infinity too
  wide[77] = std::numeric_limits<float>::infinity();
  const auto count = static_cast<int64_t>(wide.size());
  std::vector<uint16_t> half(wide.size()), brain(wide.size());
  convert(DType::kF32, wide.data(), DType::kF16, half.data(), count);
  convert(DType::kF32, wide.data(), DType::kBF16, brain.data(), count);
  std::vector<float> back(wide.size());
  convert(DType::kBF16, brain.data(), DType::kF32, back.data(), count);
  int nans = 0;
  for (size_t i = 0; i < wide.size(); ++i) {
    ASSERT_EQ(half[i], float_to_f16(wide[i])) << i;
    ASSERT_EQ(brain[i], float_to_bf16(wide[i])) << i;
    ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), uint32_t{brain[i]} << 16) << i;
    nans += std::isnan(wide[i]) ? 1 : 0;
  }
  EXPECT_GT(nans, 10);
}

// Tensors of a file lie where its header ends; the sanitizers see a load that counts on more.
TEST(DType, ConvertsFromAnyAddress) {
  const std::vector<double> f64 = {1.5, -2.0};
  const std::vector<float> f32 = {1.5F, -2.0F};
  const std::vector<uint16_t> f16 = {0x3e00, 0xc000}, bf16 = {0x3fc0, 0xc000};
  std::vector<std::byte> bytes(17);
  const auto check = [&](DType type, const auto& values) {
    for (size_t shift = 0; shift < 2; ++shift) {
      std::memcpy(bytes.data() + shift, values.data(), 2 * sizeof values[0]);
      for (const DType to : {DType::kF32, DType::kF16, DType::kBF16}) {
        std::vector<float> out(2);
        convert(type, bytes.data() + shift, to, out.data(), 2);
        const void* expected = to == DType::kF32   ? static_cast<const void*>(f32.data())
                               : to == DType::kF16 ? f16.data()
                                                   : bf16.data();
        EXPECT_EQ(std::memcmp(out.data(), expected, static_cast<size_t>(2 * dtype_size(to))), 0)
            << dtype_name(type) << " to " << dtype_name(to) << " at " << shift;
      }
    }
  };
  check(DType::kF64, f64);
  check(DType::kF32, f32);
  check(DType::kF16, f16);
  check(DType::kBF16, bf16);
}

TEST(DType, NamesGoBothWays) {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto type = static_cast<DType>(i);
    EXPECT_EQ(parse_dtype(dtype_name(type)), type);
    if (type != DType::kState) {
      EXPECT_EQ(parse_safetensors_dtype(safetensors_dtype_name(type)), type);
    }
  }
  EXPECT_EQ(parse_dtype("float"), std::nullopt);
  EXPECT_EQ(parse_safetensors_dtype(""), std::nullopt);
}

}  // namespace
}  // namespace millrace::ir
