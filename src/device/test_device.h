// Which device tests run on that pass on each of them.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "device/device.h"

namespace millrace::device {

/// What MILLRACE_TEST_DEVICE names: cpu unless it is set.
inline std::string test_device_name() {
  const char* name = std::getenv("MILLRACE_TEST_DEVICE");
  return name == nullptr ? "cpu" : name;
}

inline std::unique_ptr<Device> test_device() {
  return make_device(test_device_name(), 1);
}

}  // namespace millrace::device
