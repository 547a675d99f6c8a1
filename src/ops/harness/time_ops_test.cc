#include "ops/harness/time_ops.h"

#include <vector>

#include <gtest/gtest.h>

namespace millrace::ops {
namespace {

TEST(Ceilings, AreOfThisWorld) {
  const auto device = device::make_cpu_device(1);
  const Ceilings ceilings = measure_ceilings(*device);
  // From a sanitizer build on a busy machine to the fastest core on sale.
  EXPECT_GT(ceilings.read_gb_per_s, 0.05);
  EXPECT_LT(ceilings.read_gb_per_s, 200);
  EXPECT_GT(ceilings.fma_gflop_per_s, 0.05);
  EXPECT_LT(ceilings.fma_gflop_per_s, 1000);
  EXPECT_EQ(ceilings.bf16_gflop_per_s > 0, device->properties().isa >= device::CpuIsa::kAvx512Bf16);
}

TEST(TimeOps, CountsWhatIsMovedAndComputed) {
  const auto device = device::make_cpu_device(1);
  std::vector<Timing> timings;
  const Ceilings ceilings = {.read_gb_per_s = 10, .fma_gflop_per_s = 1000};
  time_ops({.op = "add", .case_name = "512 x 2048"}, *device, ceilings,
           [&](const Timing& timing) { timings.push_back(timing); });
  ASSERT_FALSE(timings.empty());
  const Timing& reference = timings.back();
  EXPECT_EQ(reference.tactic, "add_ref");
  EXPECT_EQ(reference.why_not, "");
  EXPECT_EQ(reference.times_reference, 1);
  // Two inputs and one output of 4 MiB, one addition each.
  const double seconds = reference.median_us * 1e-6;
  EXPECT_NEAR(reference.gb_per_s * seconds, 3 * 512 * 2048 * 4 * 1e-9, 1e-9);
  EXPECT_NEAR(reference.gflop_per_s * seconds, 512 * 2048 * 1e-9, 1e-9);
  EXPECT_TRUE(reference.bound_by_memory);
  EXPECT_NEAR(reference.of_ceiling, reference.gb_per_s / 10, 1e-6);
  if (device->properties().isa >= device::CpuIsa::kAvx2) {
    EXPECT_GT(timings.size(), 1U);
  }
}

TEST(TimeOps, TimesOnlyWhatTheFilterNames) {
  const auto device = device::make_cpu_device(1);
  int count = 0;
  time_ops({.op = "add", .tactic = "add_ref"}, *device, {}, [&](const Timing& timing) {
    EXPECT_EQ(timing.tactic, "add_ref");
    ++count;
  });
  EXPECT_GT(count, 0);
  time_ops({.op = "no_such_op"}, *device, {}, [&](const Timing&) { ADD_FAILURE(); });
}

}  // namespace
}  // namespace millrace::ops
