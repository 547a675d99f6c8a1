// How much memory this process may have: the machine's, and what its control groups grant.
#pragma once

#include <cstdint>
#include <string>

namespace millrace::device {

struct MemoryLimits {
  int64_t total = 0;      // physical memory, or the smallest limit of a control group
  int64_t available = 0;  // what is left of it now; caches of files count as left
};

/// Every path is read below `root`, which is empty but in tests.
MemoryLimits memory_limits(const std::string& root = "");

}  // namespace millrace::device
