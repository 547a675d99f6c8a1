#include "ops/common/philox.h"

#include <set>

#include <gtest/gtest.h>

namespace millrace::ops {
namespace {

// The vectors published with Random123 (kat_vectors, philox4x32 10).
TEST(Philox, KnownAnswers) {
  using Counter = std::array<uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, EveryPartOfTheKeyCounts) {
  std::set<uint64_t> seen;
  for (const uint64_t seed : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 32, ~uint64_t{0}}) {
    for (const int32_t output : {0, 1, 7}) {
      for (const int64_t position : {int64_t{0}, int64_t{1}, int64_t{1} << 32}) {
        seen.insert(request_random(seed, output, position, RandomUse::kToken));
      }
    }
  }
  EXPECT_EQ(seen.size(), 4u * 3 * 3);
}

// docs/sampling.md promises this key and this order of the words.
TEST(Philox, RequestKey) {
  const uint64_t seed = 0x0123456789abcdef;
  const auto bits = philox({0x9, 0x5, 3, 0}, {0x89abcdef, 0x01234567});
  EXPECT_EQ(request_random(seed, 3, 0x500000009, RandomUse::kToken),
            uint64_t{bits[1]} << 32 | bits[0]);
}

TEST(Philox, ScaleReachesTheEndsAndNothingBeyond) {
  EXPECT_EQ(scale_random(0, 1000), 0u);
  EXPECT_EQ(scale_random(~uint64_t{0}, 1000), 999u);
  EXPECT_EQ(scale_random(uint64_t{1} << 63, 1000), 500u);
  EXPECT_EQ(scale_random(~uint64_t{0}, uint64_t{1} << 62), (uint64_t{1} << 62) - 1);
  EXPECT_EQ(scale_random(~uint64_t{0}, 1), 0u);
}

}  // namespace
}  // namespace millrace::ops
