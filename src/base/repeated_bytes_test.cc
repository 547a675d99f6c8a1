#include "base/repeated_bytes.h"

#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace millrace {
namespace {

std::vector<std::byte> pages(int64_t count) {
  std::vector<std::byte> bytes(static_cast<size_t>(count * RepeatedBytes::page_bytes()));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i * 31 + i / 251);
  return bytes;
}

/// Pages of memory that this process has, shared ones included.
int64_t resident_pages() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident;
}

TEST(RepeatedBytes, StandAgainAndAgain) {
  const std::vector<std::byte> bytes = pages(3);
  const auto size = static_cast<int64_t>(bytes.size());
  const RepeatedBytes repeated(bytes);
  for (const int64_t length : {int64_t{0}, int64_t{1}, size - 1, size, 5 * size + 77}) {
    const auto mapped = repeated.map(length);
    for (int64_t i = 0; i < length; ++i)
      ASSERT_EQ(mapped.get()[i], bytes[static_cast<size_t>(i % size)]) << i << " of " << length;
  }
}

TEST(RepeatedBytes, OutliveWhatMadeThem) {
  const std::vector<std::byte> bytes = pages(1);
  std::shared_ptr<std::byte> mapped;
  {
    const RepeatedBytes repeated(bytes);
    mapped = repeated.map(10 * static_cast<int64_t>(bytes.size()));
  }
  EXPECT_EQ(mapped.get()[bytes.size() * 9 + 5], bytes[5]);
}

// 4 GiB, some of them read.
TEST(RepeatedBytes, TakeLittleMemory) {
  const RepeatedBytes repeated(pages(509));
  const int64_t before = resident_pages();
  const auto mapped = repeated.map(int64_t{4} << 30);
  int sum = 0;
  for (int64_t i = 0; i < 1000; ++i)
    sum += std::to_integer<int>(mapped.get()[i * 4'000'037]);
  EXPECT_GT(sum, 0);
  // Systems map a few neighbours of what is read; 4 GiB would be a million pages.
  EXPECT_LT(resident_pages() - before, 100'000);
}

TEST(RepeatedBytes, PartsOfPagesEndTheProcess) {
  const std::vector<std::byte> bytes(100);
  EXPECT_DEATH(RepeatedBytes{bytes}, "whole pages");
}

}  // namespace
}  // namespace millrace
