// Where the files of these tests are. bench/device_suite.sh runs the compiled programs on machines
// that have the repository in another place.
#pragma once

#include <cstdlib>
#include <string>

#include "device/test_device.h"

namespace millrace {

using device::test_device_name;

/// The repository.
inline std::string source_folder() {
  const char* folder = std::getenv("MILLRACE_SOURCE_DIR");
  return folder == nullptr ? MILLRACE_SOURCE_DIR : folder;
}

}  // namespace millrace
