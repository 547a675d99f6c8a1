// The formula of logn_factors, for every tactic.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

MILLRACE_HD inline double logn_factor_at(int64_t position, int64_t length) {
  if (position + 1 <= length) return 1;
  return log(static_cast<double>(position + 1)) / log(static_cast<double>(length));
}

}  // namespace millrace::ops
