#include "ops/harness/check_ops.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/harness/case_run.h"
#include "ops/harness/compare.h"

namespace millrace::ops {
namespace {

bool matches(const std::string& wanted, std::string_view name) {
  return wanted.empty() || wanted == name;
}

/// Larger cases are for benchmarks: they take longer than checking many others.
double timed_only_flops(device::Kind kind) {
  return kind == device::Kind::kCpu ? 5e9 : 1e11;
}

/// Likewise on the CPU. What its tactics see there is in smaller cases, too; GPUs take them.
constexpr double kTimedOnlyBytes = 1.5e8;

/// Of a case's tensors, or what an op reads and writes where a state is among them.
double bytes_of(const CaseData& data) {
  double bytes = 0;
  for (const std::vector<Tensor>* tensors : {&data.in, &data.out}) {
    for (const Tensor& t : *tensors) {
      if (t.dtype != ir::DType::kState) bytes += static_cast<double>(t.bytes());
    }
  }
  return std::max(bytes, data.cost().bytes);
}

constexpr double kMuchForReference = 1e8;  // some seconds under a sanitizer

bool is_slow(const CaseRun::Placement& place) {
  return place.queue.kind == device::Kind::kCpu && place.threads == 1;
}

/// Where the runs of one tactic take place.
class Places {
 public:
  explicit Places(device::Device& device) {
    if (device.properties().kind != device::Kind::kCpu) {
      places_.assign(2, {device.queue(), 1, 0});
      return;
    }
    constexpr std::array<std::pair<int, int>, 4> kThreadsAndShift = {
        {{1, 0}, {1, 1}, {2, 0}, {5, 1}}};
    for (const auto& [threads, shift] : kThreadsAndShift) {
      pools_.push_back(std::make_unique<ThreadPool>(threads));
      places_.push_back(
          {{.kind = device::Kind::kCpu, .pool = pools_.back().get()}, threads, shift});
    }
  }
  const std::vector<CaseRun::Placement>& all() const { return places_; }

 private:
  std::vector<std::unique_ptr<ThreadPool>> pools_;
  std::vector<CaseRun::Placement> places_;
};

/// Checks the tactics of one op.
class OpChecker {
 public:
  OpChecker(const Op& op, const OpFilter& filter, device::Device& device, CheckReport* report)
      : op_(op), filter_(filter), device_(device), report_(*report), places_(device) {
    host_ = device::make_cpu_device();
    one_thread_ = std::make_unique<ThreadPool>(1);
  }

  void check(const std::vector<Case>& cases) {
    if (op_.tactics.empty()) return;
    if (reference_tactic(op_) == nullptr) fail("", "", "has tactics but no reference on the CPU");
    if (cases.empty()) fail("", "", "has tactics but no cases");
    std::set<std::string> names;
    for (const Case& c : cases) {
      if (!names.insert(c.name).second) fail(c.name, "", "two cases have this name");
      if (matches(filter_.case_name, c.name)) check_case(c);
    }
    if (filter_.case_name.empty()) check_all_tried();
  }

 private:
  void fail(const std::string& case_name, const std::string& tactic, std::string what) {
    report_.failures.push_back({op_.name, case_name, tactic, std::move(what)});
  }

  void check_case(const Case& c) {
    try {
      const device::Kind kind = device_.properties().kind;
      // What attention takes follows from lengths, which are contents; a large cache is not.
      const CaseData known(op_, c,
                           kind == device::Kind::kCpu ? CaseData::kHost : CaseData::kShapes);
      const double flops = known.cost().flops;
      if (flops > timed_only_flops(kind)) return;
      if (kind == device::Kind::kCpu) {
        if (bytes_of(known) > kTimedOnlyBytes) return;
        if (flops > kMuchForReference && only_reference_takes(known)) return;
      }
      const CaseData data(op_, c);
      ++report_.cases;
      const Expected expected(*this, data);
      if (!expected.inexact.empty()) {
        fail(c.name, reference_tactic(op_)->name, expected.inexact);
      }
      for (const Tactic& tactic : op_.tactics) {
        if (tactic.device != device_.properties().kind) continue;
        if (!matches(filter_.tactic, tactic.name) || !is_feasible(data, tactic)) continue;
        if (expected.is_large && &tactic == reference_tactic(op_)) continue;
        std::string what = check_tactic(data, tactic, expected);
        if (!what.empty()) fail(c.name, tactic.name, std::move(what));
      }
    } catch (const Error& error) {
      fail(c.name, "", str("the case cannot run: ", error.what()));
    }
  }

  /// Then a large case, made for another device, tells no more than the small ones.
  bool only_reference_takes(const CaseData& data) {
    return std::none_of(op_.tactics.begin(), op_.tactics.end(), [&](const Tactic& tactic) {
      return tactic.device == device::Kind::kCpu && &tactic != reference_tactic(op_) &&
             is_feasible(data, tactic);
    });
  }

  /// Notes the reason where it is not.
  bool is_feasible(const CaseData& data, const Tactic& tactic) {
    Tried& tried = tried_[tactic.name];
    std::string why_not;
    if (tactic.why_not != nullptr) {
      device::Properties properties = device_.properties();
      why_not = tactic.why_not(data.shape_launch(), properties);
      properties.isa = device::CpuIsa::kAvx512Bf16;
      tried.somewhere |= tactic.why_not(data.shape_launch(), properties).empty();
    } else {
      tried.somewhere = true;
    }
    tried.here |= why_not.empty();
    if (!why_not.empty()) tried.why_not = why_not;
    return why_not.empty();
  }

  /// What outputs are compared with.
  struct Expected {
    Expected(const OpChecker& checker, const CaseData& data);

    bool is_large = false;             // the reference would take long
    std::unique_ptr<CaseRun> run;      // of the reference, on the host
    std::vector<OutputImage> outputs;  // of the reference; empty: Op::exact must do
    std::string inexact;               // how the reference differs from float64
  };

  std::string compare_first(const OutputImage& got, size_t i, const CaseData& data,
                            const Expected& expected) const {
    if (!expected.outputs.empty()) {
      return compare(got, expected.outputs[i], data.source.tolerance);
    }
    if (i > 0) return "";
    const Launch launch = expected.run->launch();
    return compare_exact(
        got, [&](int64_t at) { return op_.exact(launch, at); }, data.source.tolerance);
  }

  std::string check_tactic(const CaseData& data, const Tactic& tactic, const Expected& expected) {
    std::vector<OutputImage> first;
    for (const CaseRun::Placement& place : places_.all()) {
      if (expected.is_large && is_slow(place)) continue;
      const std::string how = str(" (threads ", place.threads, ", inputs shifted by ", place.shift,
                                  place.shift == 1 ? " element)" : " elements)");
      CaseRun run(data, tactic, device_, place);
      run.reset();
      run.run();
      ++report_.runs;
      if (std::string damage = run.damage(); !damage.empty()) return damage + how;
      std::vector<OutputImage> outputs = run.outputs();
      for (size_t i = 0; i < outputs.size(); ++i) {
        const std::string difference = first.empty() ? compare_first(outputs[i], i, data, expected)
                                                     : compare_bits(outputs[i], first[i]);
        if (difference.empty()) continue;
        const char* kind = first.empty() ? "" : "differs from the first run: ";
        return str("output ", i, " ", kind, difference, how);
      }
      if (first.empty()) first = std::move(outputs);
    }
    return "";
  }

  /// A tactic that no case reaches is not checked at all, and nobody would see it.
  void check_all_tried() {
    for (const auto& [tactic, tried] : tried_) {
      if (!matches(filter_.tactic, tactic)) continue;
      if (!tried.somewhere && device_.properties().kind == device::Kind::kCpu) {
        fail("", tactic, str("no case can run it on any processor: ", tried.why_not));
      } else if (!tried.here) {
        report_.untried.push_back({tactic, tried.why_not});
      }
    }
  }

  struct Tried {
    bool here = false;       // in some case on this device
    bool somewhere = false;  // had the processor every instruction set
    std::string why_not;
  };

  const Op& op_;
  const OpFilter& filter_;
  device::Device& device_;
  CheckReport& report_;
  Places places_;
  std::unique_ptr<device::Device> host_;  // where the reference runs
  std::unique_ptr<ThreadPool> one_thread_;
  std::map<std::string, Tried> tried_;
};

OpChecker::Expected::Expected(const OpChecker& checker, const CaseData& data) {
  device::Device& device = *checker.host_;
  const Op& op = checker.op_;
  const Tactic& tactic = *reference_tactic(op);
  if (tactic.why_not != nullptr) {
    const std::string why_not = tactic.why_not(data.shape_launch(), device.properties());
    if (!why_not.empty()) throw_failed(str("the reference refuses it: ", why_not));
  }
  const bool on_cpu = checker.device_.properties().kind == device::Kind::kCpu;
  is_large = data.cost().flops > (on_cpu ? 2e8 : 2e9);  // many seconds; on a CPU under a sanitizer
  // Small cases are what shows that threads do not matter, where they are run by threads.
  device::Queue queue = device.queue();
  if (!is_large && on_cpu) queue.pool = checker.one_thread_.get();
  run = std::make_unique<CaseRun>(data, tactic, device, CaseRun::Placement{queue, 1, 0});
  run->reset();
  if (is_large && op.exact != nullptr) return;
  run->run();
  outputs = run->outputs();
  if (op.exact == nullptr) return;
  const Launch launch = run->launch();
  inexact = compare_exact(
      outputs[0], [&](int64_t i) { return op.exact(launch, i); }, data.source.tolerance);
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text)
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace

std::string to_string(const CheckFailure& failure) {
  std::string text = failure.op;
  std::string command = str("millrace bench op --check --op ", failure.op);
  if (!failure.tactic.empty()) text = failure.tactic;
  if (!failure.case_name.empty()) {
    text += str(", case \"", failure.case_name, "\"");
    command += str(" --case ", quoted(failure.case_name));
  }
  if (!failure.tactic.empty()) command += str(" --tactic ", failure.tactic);
  return str(text, ": ", failure.what, "\n  repeat: ", command);
}

void check_op(const Op& op, const std::vector<Case>& cases, const OpFilter& filter,
              device::Device& device, CheckReport* report) {
  OpChecker(op, filter, device, report).check(cases);
}

void check_ops(const OpFilter& filter, device::Device& device, CheckReport* report) {
  for (const Op* op : all_ops()) {
    if (!matches(filter.op, op->name)) continue;
    check_op(*op, op_cases(op->name), filter, device, report);
  }
}

}  // namespace millrace::ops
