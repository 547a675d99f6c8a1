#include "base/cpu_limits.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string_view>

#include <sched.h>
#include <unistd.h>

#include "base/str.h"

namespace millrace {
namespace {

std::optional<std::string> read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

bool has_option(std::string_view comma_list, std::string_view option) {
  for (const std::string& part : split(comma_list, ',')) {
    if (part == option) return true;
  }
  return false;
}

/// Where a control group hierarchy is mounted, and which of its groups is at the mount point.
struct CgroupMount {
  std::string mount_point;
  std::string group_at_mount;
};

/// A line of mountinfo: `id parent device root mount_point options [optional...] - type source
/// super_options`.
std::optional<CgroupMount> find_mount(const std::string& root, bool version2) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> left = split(std::string_view(line).substr(0, dash), ' ');
    const std::vector<std::string> right = split(std::string_view(line).substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3) continue;
    const bool wanted =
        version2 ? right[0] == "cgroup2" : right[0] == "cgroup" && has_option(right[2], "cpu");
    if (wanted) return CgroupMount{left[4], left[3]};
  }
  return std::nullopt;
}

/// The group of this process: from the line `0::PATH` (version 2) or `N:cpu,cpuacct:PATH` (version
/// 1).
std::optional<std::string> find_group(const std::string& root, bool version2) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers =
        std::string_view(line).substr(first + 1, second - first - 1);
    if (version2 ? controllers.empty() : has_option(controllers, "cpu")) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

/// CPUs that one group folder grants; 0 when it sets no limit.
double quota_of_folder(const std::string& folder, bool version2) {
  double quota = 0, period = 0;
  if (version2) {
    const auto line = read_line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
    if (!line) return 0;
    const std::vector<std::string> parts = split(*line, ' ');
    if (parts.size() != 2) return 0;
    quota = std::strtod(parts[0].c_str(), nullptr);
    period = std::strtod(parts[1].c_str(), nullptr);
  } else {
    const auto quota_line = read_line(folder + "/cpu.cfs_quota_us");  // -1: no limit
    const auto period_line = read_line(folder + "/cpu.cfs_period_us");
    if (!quota_line || !period_line) return 0;
    quota = std::strtod(quota_line->c_str(), nullptr);
    period = std::strtod(period_line->c_str(), nullptr);
  }
  return quota > 0 && period > 0 ? quota / period : 0;
}

double smallest_quota(const std::string& root, bool version2) {
  const auto mount = find_mount(root, version2);
  auto group = find_group(root, version2);
  if (!mount || !group) return 0;
  // In a container the mount may show only a part of the hierarchy; a group outside that part reads
  // as its top.
  if (mount->group_at_mount != "/") {
    const std::string& top = mount->group_at_mount;
    *group = group->compare(0, top.size(), top) == 0 ? group->substr(top.size()) : "";
  }
  while (!group->empty() && group->back() == '/')
    group->pop_back();
  double smallest = 0;
  while (true) {
    const double quota = quota_of_folder(str(root, mount->mount_point, *group), version2);
    if (quota > 0 && (smallest == 0 || quota < smallest)) smallest = quota;
    if (group->empty()) return smallest;
    group->resize(group->rfind('/') == std::string::npos ? 0 : group->rfind('/'));
  }
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
  const double version1 = smallest_quota(root, false);
  const double version2 = smallest_quota(root, true);
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
