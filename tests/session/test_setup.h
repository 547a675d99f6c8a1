// What these tests share: where their files are (bench/device_suite.sh runs the compiled programs
// on machines that have the repository in another place), and how a session's steps follow each
// other.
#pragma once

#include <cstdlib>
#include <string>

#include "device/test_device.h"
#include "runtime/session_setup.h"

namespace millrace {

using device::test_device_name;

/// The repository.
inline std::string source_folder() {
  const char* folder = std::getenv("MILLRACE_SOURCE_DIR");
  return folder == nullptr ? MILLRACE_SOURCE_DIR : folder;
}

/// Runs requests to their end as a session does on a device that is asynchronous: each step is
/// launched behind the one under way.
inline void decode_ahead(runtime::SessionParts& parts,
                         const std::vector<GenerationRequest>& requests) {
  parts.batch->begin(requests, {}, {}, *parts.stepper);
  int under_way = 0;
  while (!parts.batch->done() || under_way > 0) {
    while (under_way < 2) {
      const Batch* next = parts.batch->next_batch();
      if (next == nullptr) break;
      parts.stepper->launch(*next);
      ++under_way;
    }
    parts.batch->absorb(parts.stepper->collect());
    --under_way;
  }
}

}  // namespace millrace
