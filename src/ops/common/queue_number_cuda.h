// Which counters in device memory belong to a queue. Host code.
#pragma once

#include <algorithm>
#include <array>
#include <mutex>

#include "device/device.h"

namespace millrace::ops {

/// Queues that have counters of their own: kernels have arrays of that many.
inline constexpr int kNumberedQueues = 64;

/// The number of a queue, for counters that no other queue uses at the same time. Launches of one
/// queue follow each other. THREAD: safe.
inline int queue_number(const device::Queue& queue) {
  static std::mutex mutex;
  static std::array<const void*, kNumberedQueues> streams;
  static size_t count = 0;
  const std::scoped_lock lock(mutex);
  for (size_t i = 0; i < std::min(count, streams.size()); ++i) {
    if (streams[i] == queue.stream) return static_cast<int>(i);
  }
  const size_t place = count++ % streams.size();  // of a queue that is long gone, if not free
  streams[place] = queue.stream;
  return static_cast<int>(place);
}

}  // namespace millrace::ops
