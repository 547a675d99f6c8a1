#include "ops/harness/time_ops.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string_view>
#include <vector>

#include "device/time_launches.h"
#include "ops/harness/case_run.h"

namespace millrace::ops {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool matches(const std::string& wanted, std::string_view name) {
  return wanted.empty() || wanted == name;
}

/// How many copies of the cold inputs no cache holds together.
int copies_of(const CaseData& data, const device::Properties& properties) {
  int64_t cold = 0;
  for (size_t i = 0; i < data.inputs.size(); ++i) {
    const InputSpec& spec = data.source.inputs[i];
    if (spec.cold || spec.dtype == ir::DType::kState) {
      cold += static_cast<int64_t>(data.inputs[i].size());
    }
  }
  if (cold == 0) return 1;
  constexpr int64_t kMost = 64;
  const int64_t cache = std::max(properties.last_cache_bytes, properties.l2_bytes);
  return static_cast<int>(std::clamp<int64_t>(2 * cache / cold + 1, 1, kMost));
}

double median_seconds(const CaseData& data, const Tactic& tactic, device::Device& device) {
  const CaseRun::Placement place = {device.queue(), device.properties().threads, 0};
  std::vector<std::unique_ptr<CaseRun>> runs;
  for (int i = 0; i < copies_of(data, device.properties()); ++i) {
    runs.push_back(std::make_unique<CaseRun>(data, tactic, device, place));
    runs.back()->reset();
  }
  const auto run_of = [&](int i) -> CaseRun& {
    return *runs[static_cast<size_t>(i) % runs.size()];
  };
  if (device.is_asynchronous()) {
    constexpr int kReplays = 15;
    const int launches = std::max<int>(16, static_cast<int>(runs.size()));
    return device::median(
        device::time_launches(device, launches, kReplays, [&](int i) { run_of(i).run(); }));
  }
  const auto time_one = [&](CaseRun& run) {
    const Clock::time_point start = Clock::now();
    run.run();
    device.synchronize();
    return seconds_since(start);
  };
  constexpr double kEnough = 0.25;  // seconds
  constexpr size_t kLeast = 5, kMost = 2000;
  std::vector<double> seconds;
  time_one(*runs.back());  // pages and branch predictors
  const Clock::time_point start = Clock::now();
  while (seconds.size() < kMost && (seconds.size() < kLeast || seconds_since(start) < kEnough)) {
    seconds.push_back(time_one(run_of(static_cast<int>(seconds.size()))));
  }
  return device::median(std::move(seconds));
}

class CaseTimer {
 public:
  CaseTimer(const Op& op, device::Device& device, const Ceilings& ceilings)
      : op_(op), device_(device), ceilings_(ceilings) {}

  /// References of large products take minutes: they are left out above this many operations.
  static constexpr double kMostReferenceFlops = 4e9;

  void time(const Case& c, const OpFilter& filter,
            const std::function<void(const Timing&)>& report) const {
    CaseData data(op_, c);
    const Launch launch = data.shape_launch();
    const Cost cost = data.cost();
    const Tactic* reference = reference_tactic(op_);
    const device::Properties& properties = device_.properties();
    double reference_seconds = 0;
    if (reference->device == properties.kind && cost.flops <= kMostReferenceFlops) {
      reference_seconds = median_seconds(data, *reference, device_);
    }
    for (const Tactic& tactic : op_.tactics) {
      if (tactic.device != properties.kind || !matches(filter.tactic, tactic.name)) continue;
      Timing timing{.op = op_.name, .case_name = c.name, .tactic = tactic.name, .why_not = ""};
      if (tactic.why_not != nullptr) timing.why_not = tactic.why_not(launch, properties);
      if (&tactic == reference && reference_seconds == 0) {
        timing.why_not = "too large for the reference";
      }
      if (timing.why_not.empty()) {
        const double seconds =
            &tactic == reference ? reference_seconds : median_seconds(data, tactic, device_);
        fill(cost, tactic, launch.in[0].dtype, seconds, reference_seconds, &timing);
      }
      report(timing);
    }
  }

 private:
  void fill(const Cost& cost, const Tactic& tactic, ir::DType x, double seconds,
            double reference_seconds, Timing* timing) const {
    timing->median_us = seconds * 1e6;
    timing->gb_per_s = cost.bytes / seconds / 1e9;
    timing->gflop_per_s = cost.flops / seconds / 1e9;
    const Bound bound = lower_bound(cost, {tactic.device, tactic.name, x}, ceilings_);
    timing->bound_by_memory = bound.by_memory;
    timing->of_ceiling = bound.seconds / seconds;
    timing->times_reference = reference_seconds / seconds;
  }

  const Op& op_;
  device::Device& device_;
  const Ceilings& ceilings_;
};

}  // namespace

void time_ops(const OpFilter& filter, device::Device& device, const Ceilings& ceilings,
              const std::function<void(const Timing&)>& report) {
  for (const Op* op : all_ops()) {
    if (!matches(filter.op, op->name) || op->tactics.empty()) continue;
    const CaseTimer timer(*op, device, ceilings);
    for (const Case& c : op_cases(op->name)) {
      if (c.benchmark && matches(filter.case_name, c.name)) timer.time(c, filter, report);
    }
  }
}

}  // namespace millrace::ops
