// Times tactics on the benchmark cases: `millrace bench op`.
#pragma once

#include <functional>
#include <string>

#include "device/device.h"
#include "ops/harness/ceilings.h"
#include "ops/harness/check_ops.h"

namespace millrace::ops {

/// One tactic on one case.
struct Timing {
  std::string op, case_name, tactic;
  std::string why_not;  // not empty: it was not timed, and the rest is zero
  double median_us = 0;
  double gb_per_s = 0;     // of what must be moved (Op::cost), whatever the tactic moves
  double gflop_per_s = 0;  // of what must be computed
  /// Shortest time that the ceilings allow, divided by the median. Above 1 where the data lies in
  /// caches, as most activations do.
  double of_ceiling = 0;
  bool bound_by_memory = false;  // which ceiling that was
  double times_reference = 0;    // the reference's median divided by this one; 0: not known
};

/// Calls `report` for each tactic of the device's kind on each benchmark case, as it is measured.
void time_ops(const OpFilter& filter, device::Device& device, const Ceilings& ceilings,
              const std::function<void(const Timing&)>& report);

}  // namespace millrace::ops
