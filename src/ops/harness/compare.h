// Compares what a tactic wrote with what the reference wrote.
#pragma once

#include <cstdint>
#include <string>

#include "base/function_ref.h"
#include "ops/harness/case_run.h"

namespace millrace::ops {

/// Empty when every element of `got` is within `tolerance` x the largest |want| of `want`; else the
/// first bad element and how many there are. Elements that the reference left as they were must be
/// left by the tactic, too; NaN must meet NaN, infinity the same infinity.
std::string compare(const OutputImage& got, const OutputImage& want, double tolerance);

/// Empty when the bits are equal; else the first difference.
std::string compare_bits(const OutputImage& a, const OutputImage& b);

/// Empty when some tens of elements, spread over the output, are as `exact` (Op::exact) has them:
/// within `tolerance` as above, integers equal.
std::string compare_exact(const OutputImage& got, FunctionRef<double(int64_t)> exact,
                          double tolerance);

}  // namespace millrace::ops
