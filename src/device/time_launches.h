// Device time of launches, without the host's share.
#pragma once

#include <vector>

#include "base/function_ref.h"
#include "device/device.h"

namespace millrace::device {

/// Calls work(0) to work(launches - 1) once to warm up, captures them, and replays that `replays`
/// times. Returns the mean seconds of one launch, for each replay. REQUIRES: an asynchronous
/// device; work only enqueues on its queue.
std::vector<double> time_launches(Device& device, int launches, int replays,
                                  FunctionRef<void(int)> work);

/// The same for work that has run before: it is captured at once. `replays` is told the first time
/// and says how many replays there shall be in all.
std::vector<double> time_warm_launches(Device& device, int launches,
                                       FunctionRef<int(double)> replays,
                                       FunctionRef<void(int)> work);

/// The middle one of `values` (the higher of two). REQUIRES: at least one.
double median(std::vector<double> values);

}  // namespace millrace::device
