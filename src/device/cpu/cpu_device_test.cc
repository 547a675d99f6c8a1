#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "device/cpu/isa.h"
#include "device/cpu/memory_limits.h"
#include "device/device.h"
#include "millrace/error.h"

namespace millrace::device {
namespace {

namespace fs = std::filesystem;

/// What the kernel, which reads the same registers for itself, says about the first processor.
std::string cpuinfo(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) == 0) return line.substr(line.find(':') + 2);
  }
  return "";
}

TEST(CpuIsa, AgreesWithTheKernel) {
  const std::string flags = " " + cpuinfo("flags") + " ";
  const auto has = [&](const std::string& flag) {
    return flags.find(" " + flag + " ") != std::string::npos;
  };
  CpuIsa expected = CpuIsa::kScalar;
  if (has("avx2") && has("fma") && has("f16c") && has("bmi2")) {
    expected = CpuIsa::kAvx2;
    if (has("avx512f") && has("avx512bw") && has("avx512vl") && has("avx512dq")) {
      expected = has("avx512_bf16") ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
    }
  }
  EXPECT_STREQ(isa_name(detect_isa()), isa_name(expected));
#if defined(__x86_64__)
  EXPECT_EQ(cpu_name(), cpuinfo("model name"));
#endif
}

TEST(CpuDevice, CapsTheInstructionSet) {
  EXPECT_EQ(make_cpu_device(1, CpuIsa::kScalar)->properties().isa, CpuIsa::kScalar);
  EXPECT_EQ(make_cpu_device(1)->properties().isa, detect_isa());
}

TEST(CpuDevice, QueueHasTheThreadsAskedFor) {
  const auto device = make_cpu_device(3);
  EXPECT_EQ(device->properties().threads, 3);
  EXPECT_EQ(device->queue().pool->thread_count(), 3);
  EXPECT_FALSE(device->is_asynchronous());
}

TEST(CpuDevice, MemoryIsAlignedZeroedAndCounted) {
  const auto device = make_cpu_device(1);
  const int64_t before = device->free_bytes();
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{100}, int64_t{5} << 20}) {
    const auto memory = device->allocate(bytes, "test");
    EXPECT_EQ(memory->size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 64, 0U);
    EXPECT_TRUE(std::all_of(memory->data(), memory->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
    std::fill(memory->data(), memory->data() + bytes, std::byte{1});
  }
  // What nobody has touched yet counts as used. Half of it all, because other processes come and
  // go.
  const int64_t half = before / 2;
  const auto untouched = device->allocate(half, "test");
  EXPECT_LE(device->free_bytes(), before - half / 2);
}

TEST(CpuDevice, RefusesMoreThanThereIsWithTheNumbers) {
  const auto device = make_cpu_device(1);
  EXPECT_GT(device->properties().memory_bytes, 0);
  try {
    device->allocate(device->properties().memory_bytes + 1, "KV pool");
    FAIL() << "was granted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kFailed);
    const std::string text = error.what();
    EXPECT_NE(text.find("KV pool"), std::string::npos) << text;
    EXPECT_NE(text.find(" wanted, "), std::string::npos) << text;
  }
  // Promises add up: what is given out but not touched cannot be given out again.
  const int64_t part = device->free_bytes() / 2 + (int64_t{64} << 20);
  const auto first = device->allocate(part, "weights");
  EXPECT_THROW(device->allocate(part, "KV pool"), Error);
}

/// A made-up /proc and /sys below a temporary folder.
class FakeRoot {
 public:
  FakeRoot() : path_(fs::path(::testing::TempDir()) / "millrace_memory") {
    fs::remove_all(path_);
    write("/proc/meminfo", "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:   700 kB\n");
  }
  ~FakeRoot() { fs::remove_all(path_); }
  void write(const std::string& file, const std::string& text) const {
    const fs::path full = path_.string() + file;
    fs::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  MemoryLimits limits() const { return memory_limits(path_.string()); }

 private:
  fs::path path_;
};

TEST(MemoryLimits, ThoseOfTheMachine) {
  const FakeRoot root;
  EXPECT_EQ(root.limits().total, 1000 << 10);
  EXPECT_EQ(root.limits().available, 700 << 10);
}

TEST(MemoryLimits, Version2TakesTheTightestGroup) {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
  root.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  root.write("/sys/fs/cgroup/a/memory.max", "512000\n");
  root.write("/sys/fs/cgroup/a/memory.current", "500000\n");
  root.write("/sys/fs/cgroup/a/memory.stat",
             "inactive_file_extra 7\ninactive_file 100000\nactive_file 20000\n");
  EXPECT_EQ(root.limits().total, 512000);
  EXPECT_EQ(root.limits().available, 132000);
}

TEST(MemoryLimits, Version1WithNoLimitSet) {
  const FakeRoot root;
  root.write("/proc/self/cgroup", "4:memory:/job\n");
  root.write("/proc/self/mountinfo",
             "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
  root.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
  root.write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1000\n");
  EXPECT_EQ(root.limits().available, 700 << 10);
  root.write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "300000\n");
  EXPECT_EQ(root.limits().total, 300000);
  EXPECT_EQ(root.limits().available, 299000);
}

}  // namespace
}  // namespace millrace::device
