#include "ops/common/relative_position.h"

#include <array>

#include <gtest/gtest.h>

namespace millrace::ops {
namespace {

constexpr std::array kPlaces = {-1000, -129, -128, -127, -100, -91, -90, -64, -63, -46,
                                -45,   -32,  -31,  -23,  -22,  -17, -16, -15, -12, -11,
                                -8,    -7,   -1,   0,    1,    7,   8,   11,  12,  16,
                                23,    32,   64,   90,   91,   127, 128, 500};
using Buckets = std::array<int, kPlaces.size()>;

void expect_buckets(const RelativeBuckets& buckets, const Buckets& expected) {
  EXPECT_STREQ(buckets.why_not(), "");
  for (size_t i = 0; i < kPlaces.size(); ++i)
    EXPECT_EQ(buckets(kPlaces[i]), expected[i]) << "at " << kPlaces[i];
}

// Recorded from T5Attention._relative_position_bucket of transformers 5.23.
TEST(RelativeBuckets, AreThoseOfT5) {
  expect_buckets({32, 128, true},
                 {15, 15, 15, 15, 15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 10, 9,  9,
                  8,  8,  7,  1,  0,  17, 23, 24, 24, 25, 26, 27, 28, 30, 30, 31, 31, 31, 31});
  expect_buckets({32, 128, false},
                 {31, 31, 31, 31, 30, 29, 29, 26, 26, 24, 23, 21, 21, 18, 18, 16, 16, 15, 12,
                  11, 8,  7,  1,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0});
  expect_buckets({6, 20, false}, {5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
                                  5, 4, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  expect_buckets({10, 24, true}, {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
                                  4, 3, 3, 1, 0, 6, 8, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9});
}

TEST(RelativeBuckets, SaysWhatMakesNoSense) {
  EXPECT_STRNE((RelativeBuckets{31, 128, true}.why_not()), "");
  EXPECT_STRNE((RelativeBuckets{2, 128, true}.why_not()), "");
  EXPECT_STRNE((RelativeBuckets{32, 16, false}.why_not()), "");
  EXPECT_STREQ((RelativeBuckets{32, 17, false}.why_not()), "");
}

}  // namespace
}  // namespace millrace::ops
