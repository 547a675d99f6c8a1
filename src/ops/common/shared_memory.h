// How much shared memory a kernel can have. Host code.
#pragma once

#include <cstdint>
#include <string>

#include "base/str.h"
#include "device/device.h"

namespace millrace::ops {

/// Most shared memory of a block, static and dynamic, by compute capability (CUDA C++ Programming
/// Guide, technical specifications). Of one that is not known, the least of all.
inline int64_t most_shared_bytes(const device::Properties& device) {
  switch (device.sm) {
    case 80:
    case 87:
      return int64_t{163} << 10;
    case 90:
    case 100:
    case 103:
    case 110:
      return int64_t{227} << 10;
    default:
      return int64_t{99} << 10;
  }
}

/// Why a kernel with so much, its static shared memory among it, cannot run; empty if it can.
inline std::string why_no_shared(int64_t bytes, const device::Properties& device) {
  const int64_t most = most_shared_bytes(device);
  if (bytes <= most) return "";
  return str("needs ", (bytes + 1023) >> 10, " KiB of shared memory, a block of this GPU has ",
             most >> 10);
}

}  // namespace millrace::ops
