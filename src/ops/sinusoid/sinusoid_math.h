// The formula of sinusoid, for every tactic.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops {

MILLRACE_HD inline double sinusoid_at(int64_t position, int64_t column, int64_t dim) {
  const int64_t sines = (dim + 1) / 2;
  const int64_t i = column < sines ? column : column - sines;
  const double angle = static_cast<double>(position) /
                       pow(10000.0, 2 * static_cast<double>(i) / static_cast<double>(dim));
  return column < sines ? sin(angle) : cos(angle);
}

}  // namespace millrace::ops
