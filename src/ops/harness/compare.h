// Compares what a tactic wrote with what the reference wrote.
#pragma once

#include <string>

#include "ops/harness/case_run.h"

namespace millrace::ops {

/// Empty when every element of `got` is within `tolerance` x the largest |want| of `want`; else the
/// first bad element and how many there are. Elements that the reference left as they were must be
/// left by the tactic, too; NaN must meet NaN, infinity the same infinity.
std::string compare(const OutputImage& got, const OutputImage& want, double tolerance);

/// Empty when the bits are equal; else the first difference.
std::string compare_bits(const OutputImage& a, const OutputImage& b);

}  // namespace millrace::ops
