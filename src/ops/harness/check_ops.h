// Checks every tactic of every op on every case against the reference, with nothing but the
// program: `millrace bench op --check`.
//
// Each tactic runs four times (twice with one thread, with 2 and with 5; twice on other devices).
// Outputs and workspace are poisoned before each run, guard bytes lie around every buffer, inputs
// lie between NaNs and must not change, and the second run finds its inputs one element off their
// alignment (on the CPU, where weights are read from files as they lie). The first result must
// agree with the reference's on the same inputs within the case's tolerance, all later ones with
// the first, bit for bit. Where the reference would take many seconds, tactics run twice and are
// compared with some tens of elements in float64 (Op::exact), if the op has them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/harness/cases.h"
#include "ops/op.h"

namespace millrace::ops {

/// Whole names; an empty one matches all.
struct OpFilter {
  std::string op = {}, case_name = {}, tactic = {};
};

struct CheckFailure {
  std::string op, case_name, tactic;  // case_name and tactic may be empty: the op as a whole
  std::string what;
};

/// Two lines: what is wrong, and the command that repeats only this check.
std::string to_string(const CheckFailure& failure);

/// A tactic that could run in no case on this device.
struct UntriedTactic {
  std::string tactic;
  std::string why_not;  // the last reason given
};

struct CheckReport {
  int64_t cases = 0;
  int64_t runs = 0;
  std::vector<CheckFailure> failures;
  std::vector<UntriedTactic> untried;
};

/// Adds to the report. A report without cases: the filter matched nothing.
void check_ops(const OpFilter& filter, device::Device& device, CheckReport* report);

/// The same for one op and given cases.
void check_op(const Op& op, const std::vector<Case>& cases, const OpFilter& filter,
              device::Device& device, CheckReport* report);

}  // namespace millrace::ops
