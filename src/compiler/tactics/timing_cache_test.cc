#include "compiler/tactics/timing_cache.h"

#include <filesystem>
#include <fstream>
#include <string_view>

#include <gtest/gtest.h>

#include "base/str.h"

namespace millrace::compiler {
namespace {

device::Properties cpu(const char* name, device::CpuIsa isa, int threads) {
  device::Properties properties;
  properties.name = name;
  properties.isa = isa;
  properties.threads = threads;
  return properties;
}

constexpr std::string_view kSoftware = "one version";
const device::Properties kHere = cpu("here", device::CpuIsa::kAvx2, 2);

class TimingCacheTest : public testing::Test {
 protected:
  TimingCacheTest() { std::filesystem::remove(path_); }
  const std::string path_ =
      str(testing::TempDir(), "/timings_",
          testing::UnitTest::GetInstance()->current_test_info()->name(), ".tsv");
};

TEST_F(TimingCacheTest, ComesBackFromItsFile) {
  TimingCache cache(path_, kHere, kSoftware);
  EXPECT_EQ(cache.find("matmul{} f32[2, 2]", "rows"), std::nullopt);
  cache.add("matmul{} f32[2, 2]", "rows", 1.0 / 3);
  cache.save();
  const TimingCache again(path_, kHere, kSoftware);
  EXPECT_EQ(again.find("matmul{} f32[2, 2]", "rows"), 1.0 / 3);
  EXPECT_EQ(again.find("matmul{} f32[2, 2]", "panels"), std::nullopt);
  EXPECT_EQ(again.find("matmul{} f32[2, 3]", "rows"), std::nullopt);
}

TEST_F(TimingCacheTest, KeepsDevicesApart) {
  TimingCache cache(path_, kHere, kSoftware);
  cache.add("p", "t", 1);
  cache.save();
  for (const device::Properties& other :
       {cpu("there", device::CpuIsa::kAvx2, 2), cpu("here", device::CpuIsa::kScalar, 2),
        cpu("here", device::CpuIsa::kAvx2, 3)}) {
    EXPECT_EQ(TimingCache(path_, other, kSoftware).find("p", "t"), std::nullopt);
  }
  device::Properties gpu = kHere;
  gpu.kind = device::Kind::kCuda;
  EXPECT_EQ(TimingCache(path_, gpu, kSoftware).find("p", "t"), std::nullopt);
  EXPECT_EQ(TimingCache(path_, kHere, kSoftware).find("p", "t"), 1);
}

TEST_F(TimingCacheTest, KeepsVersionsApart) {
  TimingCache cache(path_, kHere, kSoftware);
  cache.add("p", "t", 1);
  cache.save();
  EXPECT_EQ(TimingCache(path_, kHere, "another version").find("p", "t"), std::nullopt);
  EXPECT_EQ(TimingCache(path_, kHere, kSoftware).find("p", "t"), 1);
}

TEST_F(TimingCacheTest, KeepsWhatOthersWroteMeanwhile) {
  TimingCache one(path_, kHere, kSoftware),
      two(path_, cpu("there", device::CpuIsa::kAvx2, 2), kSoftware);
  one.add("p", "t", 1);
  two.add("p", "t", 2);
  one.save();
  two.save();
  EXPECT_EQ(TimingCache(path_, kHere, kSoftware).find("p", "t"), 1);
  EXPECT_EQ(TimingCache(path_, cpu("there", device::CpuIsa::kAvx2, 2), kSoftware).find("p", "t"),
            2);
}

TEST_F(TimingCacheTest, SkipsDamagedLines) {
  TimingCache cache(path_, kHere, kSoftware);
  cache.add("p", "good", 4);
  cache.save();
  std::ofstream(path_, std::ios::app)
      << "\n\t\nno tab\nhere/avx2/2\tp\tnegative\t-1\nhere/avx2/2\tp\tzero\t0\n"
      << "here/avx2/2\tp\tword\tfast\nhere/avx2/2\tp\ttail\t1x\nhere/avx2/2\tp\tnan\tnan\n"
      << "here/avx2/2\tp\tcut\t";
  const TimingCache again(path_, kHere, kSoftware);
  EXPECT_EQ(again.find("p", "good"), 4);
  for (const char* name : {"negative", "zero", "word", "tail", "nan", "cut"})
    EXPECT_EQ(again.find("p", name), std::nullopt) << name;
}

TEST_F(TimingCacheTest, NeverFails) {
  TimingCache cache("/dev/null/timings.tsv", kHere, kSoftware);
  cache.add("p", "t", 1);
  EXPECT_NO_THROW(cache.save());
  EXPECT_EQ(cache.find("p", "t"), 1);
}

}  // namespace
}  // namespace millrace::compiler
