#include "device/named_range.h"

#include <string>
#include <thread>

#include <gtest/gtest.h>

namespace millrace::device {
namespace {

TEST(NamedRange, NestsAndEnds) {
  EXPECT_STREQ(current_range(), "");
  {
    const NamedRange outer(Kind::kCpu, "matmul layers.0.q_proj");
    EXPECT_STREQ(current_range(), "matmul layers.0.q_proj");
    {
      const NamedRange inner(Kind::kCpu, "rope_append layers.0");
      EXPECT_STREQ(current_range(), "rope_append layers.0");
    }
    EXPECT_STREQ(current_range(), "matmul layers.0.q_proj");
  }
  EXPECT_STREQ(current_range(), "");
}

TEST(NamedRange, EndsWhenALaunchThrows) {
  try {
    const NamedRange range(Kind::kCpu, "matmul");
    throw 1;
  } catch (int) {
    EXPECT_STREQ(current_range(), "");
  }
}

TEST(NamedRange, BelongsToItsThread) {
  const NamedRange range(Kind::kCpu, "matmul");
  std::string other = "not asked";
  std::thread([&] { other = current_range(); }).join();
  EXPECT_EQ(other, "");
}

}  // namespace
}  // namespace millrace::device
