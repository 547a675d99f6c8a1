#include "base/cgroup.h"

#include <fstream>

#include "base/str.h"

namespace millrace {
namespace {

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
std::optional<CgroupMount> find_mount(CgroupVersion version, std::string_view controller,
                                      const std::string& root) {
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const std::vector<std::string> left = split(std::string_view(line).substr(0, dash), ' ');
    const std::vector<std::string> right = split(std::string_view(line).substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3) continue;
    const bool wanted = version == CgroupVersion::k2
                            ? right[0] == "cgroup2"
                            : right[0] == "cgroup" && has_option(right[2], controller);
    if (wanted) return CgroupMount{left[4], left[3]};
  }
  return std::nullopt;
}

/// The group of this process: from the line `0::PATH` (version 2) or `N:cpu,cpuacct:PATH` (version
/// 1).
std::optional<std::string> find_group(CgroupVersion version, std::string_view controller,
                                      const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string_view controllers =
        std::string_view(line).substr(first + 1, second - first - 1);
    if (version == CgroupVersion::k2 ? controllers.empty() : has_option(controllers, controller)) {
      return line.substr(second + 1);
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> read_first_line(const std::string& path) {
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

std::vector<std::string> cgroup_folders(CgroupVersion version, std::string_view controller,
                                        const std::string& root) {
  const auto mount = find_mount(version, controller, root);
  auto group = find_group(version, controller, root);
  if (!mount || !group) return {};
  // In a container the mount may show only a part of the hierarchy; a group outside that part reads
  // as its top.
  if (mount->group_at_mount != "/") {
    const std::string& top = mount->group_at_mount;
    *group = group->compare(0, top.size(), top) == 0 ? group->substr(top.size()) : "";
  }
  while (!group->empty() && group->back() == '/')
    group->pop_back();
  std::vector<std::string> folders;
  while (true) {
    folders.push_back(str(root, mount->mount_point, *group));
    if (group->empty()) return folders;
    group->resize(group->rfind('/') == std::string::npos ? 0 : group->rfind('/'));
  }
}

}  // namespace millrace
