#include "device/cpu/memory_limits.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "base/cgroup.h"

namespace millrace::device {
namespace {

/// The number of a line `KEY NUMBER ...` or `KEY: NUMBER ...`.
std::optional<int64_t> find_number(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    if (line.size() == key.size() || (line[key.size()] != ' ' && line[key.size()] != ':')) continue;
    return std::strtoll(line.c_str() + key.size() + 1, nullptr, 10);
  }
  return std::nullopt;
}

/// The number in a file of one number; "max" counts as none.
std::optional<int64_t> read_number(const std::string& path) {
  const auto line = read_first_line(path);
  if (!line || line->empty() || line->front() < '0' || line->front() > '9') return std::nullopt;
  return std::strtoll(line->c_str(), nullptr, 10);
}

struct CgroupFiles {
  const char* limit;
  const char* usage;
  std::initializer_list<const char*> reclaimable;  // keys of memory.stat
};

void apply_cgroups(CgroupVersion version, const CgroupFiles& files, const std::string& root,
                   MemoryLimits* limits) {
  for (const std::string& folder : cgroup_folders(version, "memory", root)) {
    const auto limit = read_number(folder + files.limit);
    if (!limit) continue;
    int64_t used = read_number(folder + files.usage).value_or(0);
    for (const char* key : files.reclaimable) {
      used -= find_number(folder + "/memory.stat", key).value_or(0);
    }
    limits->total = std::min(limits->total, *limit);
    limits->available = std::min(limits->available, *limit - std::max<int64_t>(used, 0));
  }
}

}  // namespace

MemoryLimits memory_limits(const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  MemoryLimits limits;
  limits.total = find_number(meminfo, "MemTotal").value_or(0) << 10;
  limits.available = find_number(meminfo, "MemAvailable").value_or(limits.total >> 10) << 10;
  apply_cgroups(CgroupVersion::k1,
                {"/memory.limit_in_bytes",
                 "/memory.usage_in_bytes",
                 {"total_inactive_file", "total_active_file"}},
                root, &limits);
  apply_cgroups(CgroupVersion::k2,
                {"/memory.max", "/memory.current", {"inactive_file", "active_file"}}, root,
                &limits);
  limits.available = std::max<int64_t>(limits.available, 0);
  return limits;
}

}  // namespace millrace::device
