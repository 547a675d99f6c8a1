// The name of what a thread launches: in the timelines of profilers (NVTX), and in the messages of
// CUDA errors.
#pragma once

#include "device/device.h"

namespace millrace::device {

/// From here to its destruction, this thread's launches on a queue of this kind are of `name`,
/// which must outlive it. Ranges nest.
class NamedRange {
 public:
  NamedRange(Kind kind, const char* name);
  ~NamedRange();
  NamedRange(const NamedRange&) = delete;
  NamedRange& operator=(const NamedRange&) = delete;

 private:
  Kind kind_;
  const char* outer_;
};

/// Of this thread's innermost range; empty outside of all.
const char* current_range();

}  // namespace millrace::device
