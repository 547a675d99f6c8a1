#include "base/str.h"

#include <array>
#include <cstdint>
#include <limits>

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(Str, ConcatenatesEveryKindOfPart) {
  EXPECT_EQ(str("a", 'b', std::string("c"), std::string_view("d"), 1, -2, true, false, 0.5),
            "abcd1-2truefalse0.5");
  EXPECT_EQ(str(), "");
}

TEST(Str, PrintsNumbersSoThatTheyReadBack) {
  EXPECT_EQ(str(0.1f), "0.1");
  EXPECT_EQ(str(1e-5), "1e-05");
  EXPECT_EQ(str(std::numeric_limits<int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(str(std::numeric_limits<uint64_t>::max()), "18446744073709551615");
}

TEST(Str, FormatsBytesWithThreeDigits) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1.00 KiB");
  EXPECT_EQ(format_bytes(1536), "1.50 KiB");
  EXPECT_EQ(format_bytes(int64_t{384} << 10), "384 KiB");
  EXPECT_EQ(format_bytes(int64_t{12} << 30), "12.0 GiB");
  EXPECT_EQ(format_bytes(int64_t{1} << 50), "1024 TiB");
}

TEST(Str, Joins) {
  EXPECT_EQ(join(std::array<int, 0>{}, ", "), "");
  EXPECT_EQ(join(std::array{1, 2, 3}, ", "), "1, 2, 3");
}

}  // namespace
}  // namespace millrace
