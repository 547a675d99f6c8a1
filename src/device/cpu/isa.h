// What the processor is and can do.
#pragma once

#include <cstdint>
#include <string>

#include "device/device.h"

namespace millrace::device {

/// The best instruction set that the processor has and the operating system saves the registers of.
CpuIsa detect_isa();

/// "AMD EPYC 9B14"; "CPU" where the processor does not say.
std::string cpu_name();

struct CacheSizes {
  int64_t l2 = 0;    // of one core
  int64_t last = 0;  // of the last level, which cores share
};
/// Typical sizes where the system does not say.
CacheSizes cache_sizes();

}  // namespace millrace::device
