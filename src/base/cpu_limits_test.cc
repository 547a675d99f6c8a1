#include "base/cpu_limits.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include <gtest/gtest.h>
#include <sched.h>

namespace millrace {
namespace {

namespace fs = std::filesystem;

/// A made-up /proc and /sys below a temporary folder.
class FakeRoot {
 public:
  explicit FakeRoot(const std::string& name)
      : path_(fs::path(::testing::TempDir()) / ("millrace_cgroup_" + name)) {
    fs::remove_all(path_);
  }
  ~FakeRoot() { fs::remove_all(path_); }
  void write(const std::string& file, const std::string& text) const {
    const fs::path full = path_.string() + file;
    fs::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  double quota() const { return cgroup_cpu_quota(path_.string()); }

 private:
  fs::path path_;
};

TEST(CpuLimits, NoControlGroupMeansNoQuota) {
  EXPECT_EQ(FakeRoot("none").quota(), 0);
}

TEST(CpuLimits, Version2TakesTheSmallestOnTheWayUp) {
  const FakeRoot root("v2");
  root.write("/proc/self/cgroup", "0::/user.slice/app.scope\n");
  root.write("/proc/self/mountinfo",
             "20 1 0:4 / /proc rw - proc proc rw\n"
             "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
  root.write("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(root.quota(), 0);
  root.write("/sys/fs/cgroup/user.slice/cpu.max", "350000 100000\n");
  EXPECT_EQ(root.quota(), 3.5);
  root.write("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "100000 50000\n");
  EXPECT_EQ(root.quota(), 2);
}

TEST(CpuLimits, Version2InAContainerReadsTheMountedPart) {
  const FakeRoot root("v2_container");
  root.write("/proc/self/cgroup", "0::/\n");
  root.write("/proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n");
  root.write("/sys/fs/cgroup/cpu.max", "400000 100000\n");
  EXPECT_EQ(root.quota(), 4);
}

TEST(CpuLimits, Version1WithJoinedControllersAndAContainerRoot) {
  const FakeRoot root("v1");
  root.write("/proc/self/cgroup", "3:cpuset:/\n2:cpu,cpuacct:/docker/abc/inner\n");
  root.write("/proc/self/mountinfo",
             "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
             "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
  root.write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  root.write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(root.quota(), 0);
  root.write("/sys/fs/cgroup/cpu/inner/cpu.cfs_quota_us", "150000\n");
  root.write("/sys/fs/cgroup/cpu/inner/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(root.quota(), 1.5);
}

TEST(CpuLimits, DamagedFilesMeanNoQuota) {
  const FakeRoot root("damaged");
  root.write("/proc/self/cgroup", "nonsense\n0:\n0::/a\n");
  root.write("/proc/self/mountinfo", " - \nx - y\n31 23 0:28 / /cg rw - cgroup2 cgroup rw\n");
  root.write("/cg/a/cpu.max", "0 0\n");
  root.write("/cg/cpu.max", "many\n");
  EXPECT_EQ(root.quota(), 0);
}

TEST(CpuLimits, FollowsTheAffinityMask) {
  const std::vector<int> cpus = allowed_cpus();
  ASSERT_FALSE(cpus.empty());
  std::thread([&] {  // the mask of this thread only
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(cpus.back()), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(allowed_cpus(), std::vector<int>{cpus.back()});
    EXPECT_EQ(default_thread_count(), 1);
  })
      .join();
}

}  // namespace
}  // namespace millrace
