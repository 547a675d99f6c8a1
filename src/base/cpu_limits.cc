#include "base/cpu_limits.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>

#include <sched.h>
#include <unistd.h>

#include "base/cgroup.h"

namespace millrace {
namespace {

/// CPUs that one group folder grants; 0 when it sets no limit.
double quota_of_folder(const std::string& folder, CgroupVersion version) {
  double quota = 0, period = 0;
  if (version == CgroupVersion::k2) {
    const auto line = read_first_line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
    if (!line) return 0;
    const std::vector<std::string> parts = split(*line, ' ');
    if (parts.size() != 2) return 0;
    quota = std::strtod(parts[0].c_str(), nullptr);
    period = std::strtod(parts[1].c_str(), nullptr);
  } else {
    const auto quota_line = read_first_line(folder + "/cpu.cfs_quota_us");  // -1: no limit
    const auto period_line = read_first_line(folder + "/cpu.cfs_period_us");
    if (!quota_line || !period_line) return 0;
    quota = std::strtod(quota_line->c_str(), nullptr);
    period = std::strtod(period_line->c_str(), nullptr);
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

double smallest_quota(CgroupVersion version, const std::string& root) {
  double smallest = 0;
  for (const std::string& folder : cgroup_folders(version, "cpu", root)) {
    const double quota = quota_of_folder(folder, version);
    if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
  }
  return smallest;
}

}  // namespace

std::vector<int> allowed_cpus() {
  // The kernel refuses a mask smaller than its own: grow until it fits.
  for (int size = 1024; size <= (1 << 20); size *= 2) {
    cpu_set_t* set = CPU_ALLOC(size);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(size);
    CPU_ZERO_S(bytes, set);
    const int status = sched_getaffinity(0, bytes, set);
    const int error = errno;
    std::vector<int> cpus;
    for (int cpu = 0; status == 0 && cpu < size; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (!cpus.empty()) return cpus;
    if (error != EINVAL) break;
  }
  std::vector<int> cpus(static_cast<size_t>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))));
  for (size_t i = 0; i < cpus.size(); ++i)
    cpus[i] = static_cast<int>(i);
  return cpus;
}

double cgroup_cpu_quota(const std::string& root) {
  const double version1 = smallest_quota(CgroupVersion::k1, root);
  const double version2 = smallest_quota(CgroupVersion::k2, root);
  if (version1 == 0 || version2 == 0) return std::max(version1, version2);
  return std::min(version1, version2);
}

int default_thread_count() {
  const int allowed = static_cast<int>(allowed_cpus().size());
  const double quota = cgroup_cpu_quota();
  if (quota == 0 || quota >= allowed) return allowed;
  return std::max(1, static_cast<int>(std::lround(quota)));
}

}  // namespace millrace
