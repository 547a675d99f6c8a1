#include "cli/bench_op.h"

#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/args.h"
#include "ops/harness/check_ops.h"
#include "ops/harness/time_ops.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOpOptions {
  std::string device = "auto";
  ops::OpFilter filter;
  std::optional<int> threads;
  bool check = false, json = false;
};

std::string print(const Json& json) {
  return json_line(json);
}

[[noreturn]] void refuse_filter(const ops::OpFilter& f) {
  throw_bad_input(str("no case matches ", f.op, " ", f.case_name, " ", f.tactic),
                  "--op, --case, --tactic", "check the names, or leave a filter out");
}

int check(const BenchOpOptions& o, device::Device& device) {
  ops::CheckReport report;
  ops::check_ops(o.filter, device, &report);
  if (report.cases == 0) {
    refuse_filter(o.filter);
  }
  if (o.json) {
    Json failures = Json::array(), untried = Json::array();
    for (const ops::CheckFailure& f : report.failures) {
      failures.push_back(
          {{"op", f.op}, {"case", f.case_name}, {"tactic", f.tactic}, {"what", f.what}});
    }
    for (const ops::UntriedTactic& u : report.untried) {
      untried.push_back({{"tactic", u.tactic}, {"why_not", u.why_not}});
    }
    std::puts(print({{"cases", report.cases},
                     {"runs", report.runs},
                     {"failures", std::move(failures)},
                     {"untried", std::move(untried)}})
                  .c_str());
  } else {
    for (const ops::CheckFailure& f : report.failures)
      std::puts(ops::to_string(f).c_str());
    for (const ops::UntriedTactic& u : report.untried) {
      std::printf("not tried: %s: %s\n", u.tactic.c_str(), u.why_not.c_str());
    }
    std::printf("%lld cases, %lld runs, %zu failures, %zu tactics not tried on this device\n",
                static_cast<long long>(report.cases), static_cast<long long>(report.runs),
                report.failures.size(), report.untried.size());
  }
  return report.failures.empty() ? 0 : 1;
}

int time(const BenchOpOptions& o, device::Device& device) {
  const ops::Ceilings ceilings = ops::measure_ceilings(device);
  const int threads = device.properties().threads;
  const auto heading = [&] {
    std::printf("%s, %d threads: %.1f GB/s read, %.1f GFLOP/s fp32, %.1f GFLOP/s bf16\n",
                device.properties().name.c_str(), threads, ceilings.read_gb_per_s,
                ceilings.fma_gflop_per_s, ceilings.bf16_gflop_per_s);
    std::printf("%10s %8s %9s %6s %7s  %s\n", "us", "GB/s", "GFLOP/s", "% top", "x ref",
                "tactic, case");
  };
  bool any = false;
  ops::time_ops(o.filter, device, ceilings, [&](const ops::Timing& t) {
    if (!t.why_not.empty()) return;
    if (!any && !o.json) heading();
    any = true;
    if (o.json) {
      std::puts(print({{"op", t.op},
                       {"case", t.case_name},
                       {"tactic", t.tactic},
                       {"time_us", t.median_us},
                       {"gb_per_s", t.gb_per_s},
                       {"gflop_per_s", t.gflop_per_s},
                       {"threads", threads},
                       {"ceiling_share", t.of_ceiling},
                       {"times_reference", t.times_reference}})
                    .c_str());
    } else {
      std::printf("%10.1f %8.1f %9.1f %6.1f %7.1f  %s, %s\n", t.median_us, t.gb_per_s,
                  t.gflop_per_s, 100 * t.of_ceiling, t.times_reference, t.tactic.c_str(),
                  t.case_name.c_str());
    }
    std::fflush(stdout);
  });
  if (!any) refuse_filter(o.filter);
  return 0;
}

int run(const BenchOpOptions& o) {
  if (o.threads && *o.threads < 1)
    throw_bad_input("too few threads", "--threads", "give 1 or more");
  const auto device = device::make_device(o.device, o.threads.value_or(0));
  return o.check ? check(o, *device) : time(o, *device);
}

}  // namespace

void add_bench_op(Command& bench) {
  auto options = std::make_shared<BenchOpOptions>();
  BenchOpOptions& o = *options;
  Command command =
      bench.command("op", "check or time the operations, with nothing but the program");
  command.option("--device", &o.device, "auto, cpu or cuda[:N]")
      .option("--threads", &o.threads, "CPU threads")
      .flag("--check", &o.check, "compare every tactic with the reference instead of timing")
      .option("--op", &o.filter.op, "only this operation")
      .option("--case", &o.filter.case_name, "only this case")
      .option("--tactic", &o.filter.tactic, "only this tactic")
      .flag("--json", &o.json, "as JSON lines");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
