// Where the control groups (versions 1 and 2) of this process keep their limits.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

enum class CgroupVersion { k1, k2 };

/// The folders of this process's group and of all above it that are visible, innermost first; empty
/// when there are none. `controller` ("cpu", "memory") chooses the hierarchy of version 1. Every
/// path is read below `root`, which is empty but in tests.
std::vector<std::string> cgroup_folders(CgroupVersion version, std::string_view controller,
                                        const std::string& root);

/// The first line of a file, if there is one.
std::optional<std::string> read_first_line(const std::string& path);

/// The parts of `text` between separators; one empty part for an empty text.
std::vector<std::string> split(std::string_view text, char separator);

}  // namespace millrace
