#include "base/version.h"

#include <regex>

#include <gtest/gtest.h>

namespace millrace {
namespace {

TEST(Version, HasThreeNumbersAndACommit) {
  EXPECT_TRUE(std::regex_match(version(), std::regex(R"(\d+\.\d+\.\d+)"))) << version();
  EXPECT_TRUE(std::regex_match(commit(), std::regex("unknown|[0-9a-f]{10,40}(-dirty)?")))
      << commit();
}

}  // namespace
}  // namespace millrace
