#include "base/hash.h"

#include <vector>

#include <gtest/gtest.h>

namespace millrace {
namespace {

/// 0, 1, ..., 255, forty times over: long enough for every branch of XXH3.
std::vector<std::byte> long_input() {
  std::vector<std::byte> bytes(256 * 40);
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i & 255);
  return bytes;
}

// From the Python package xxhash 4.1.0 (xxHash 0.8.4); files hold these values, so they never
// change.
TEST(Hash, MatchesXxh3) {
  EXPECT_EQ(to_hex(hash64("")), "2d06800538d394c2");
  EXPECT_EQ(to_hex(hash64("millrace")), "0f798300cb96eca5");
  EXPECT_EQ(to_hex(hash64(long_input())), "c03d2231ab9348f3");
  EXPECT_EQ(to_hex(hash128("")), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(to_hex(hash128("millrace")), "164a3e261dc69aaa8150a1435f1760b2");
  EXPECT_EQ(to_hex(hash128(long_input())), "1cb22534d0d96975c03d2231ab9348f3");
}

TEST(Hash, PartsGiveTheHashOfTheWhole) {
  const std::vector<std::byte> bytes = long_input();
  for (const size_t part : {size_t{1}, size_t{7}, size_t{1024}, bytes.size()}) {
    StreamHash stream;
    for (size_t at = 0; at < bytes.size(); at += part) {
      stream.update(std::span(bytes).subspan(at, std::min(part, bytes.size() - at)));
    }
    EXPECT_EQ(stream.digest64(), hash64(bytes));
    EXPECT_EQ(stream.digest128(), hash128(bytes));
  }
  StreamHash text;
  text.update("mill");
  text.update("race");
  EXPECT_EQ(text.digest64(), hash64("millrace"));
}

}  // namespace
}  // namespace millrace
