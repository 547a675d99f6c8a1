// How many CPUs this process may use: its affinity mask and the CPU quota of its control groups
// (versions 1 and 2).
#pragma once

#include <string>
#include <vector>

namespace millrace {

/// The CPUs of the affinity mask, ascending; never empty.
std::vector<int> allowed_cpus();

/// The smallest CPU quota, in CPUs, on the way from this process's control group to the root; 0
/// when there is none. Every path is read below `root`, which is empty but in tests.
double cgroup_cpu_quota(const std::string& root = "");

/// CPUs of the affinity mask, at most the quota rounded to a whole number; at least 1.
int default_thread_count();

}  // namespace millrace
