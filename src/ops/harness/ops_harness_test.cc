// The harness on ops made for it: a right one, and one for every kind of fault, each of which must
// be found and named.
#include <cstring>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "ops/attributes.h"
#include "ops/common/kv_cache_view.h"
#include "ops/harness/check_ops.h"

namespace millrace::ops {
namespace {

struct NoAttributes {
  static constexpr std::string_view kName = "twice";
  static constexpr auto fields() { return std::tuple{}; }
};

std::vector<ir::TensorType> same_type(std::span<const ir::TensorType> types, const ir::Attrs&) {
  return {types[0]};
}

// The op: out = 2 x, for f32 x of any shape.
void twice(const Launch& launch) {
  for (int64_t i = 0; i < launch.in[0].count(); ++i)
    launch.out[0].as<float>()[i] = 2 * launch.in[0].as<float>()[i];
}

CheckReport check(const Tactic& tactic,
                  std::vector<InputSpec> inputs = {normal(ir::DType::kF32, {3, 7})}) {
  const Tactic tactics[] = {tactic, {.name = "twice_ref", .run = twice}};
  const Op op = {.name = "twice",
                 .tactics = tactics,
                 .infer = same_type,
                 .parse_attrs = parse_attrs<NoAttributes>};
  const auto device = device::make_cpu_device(2);
  CheckReport report;
  check_op(op, {{.name = "it's small", .attrs = {}, .inputs = std::move(inputs)}}, {}, *device,
           &report);
  return report;
}

/// Expects one failure, that its text holds `text`, and that it names what is needed to repeat it.
void expect_caught(const CheckReport& report, const std::string& text) {
  ASSERT_EQ(report.failures.size(), 1U) << text;
  const std::string line = to_string(report.failures[0]);
  EXPECT_NE(line.find(text), std::string::npos) << line;
  EXPECT_NE(line.find("bench op --check --op twice --case 'it'\\''s small' --tactic twice_fault"),
            std::string::npos)
      << line;
}

TEST(OpsHarness, PassesWhatIsRight) {
  const CheckReport report = check({.name = "twice_right", .run = twice});
  EXPECT_TRUE(report.failures.empty());
  EXPECT_EQ(report.cases, 1);
  EXPECT_EQ(report.runs, 8);
}

// Not even their inputs are made.
TEST(OpsHarness, LeavesLargeCasesToBenchmarks) {
  const auto fill = [](ir::DType, std::byte*, int64_t, Random&) { ADD_FAILURE(); };
  const CheckReport report =
      check({.name = "twice_right", .run = twice}, {filled(ir::DType::kF32, {4, 5'000'000}, fill)});
  EXPECT_TRUE(report.failures.empty());
  EXPECT_EQ(report.cases, 0);
}

// Large weights: the numbers of no two rows are the same.
TEST(OpsHarness, RepeatsNumbersFarApart) {
  constexpr int64_t kRows = 300, kWidth = 4096;
  std::vector<float> x(static_cast<size_t>(kRows * kWidth));
  Random random(1);
  normal(ir::DType::kF32, {kRows, kWidth})
      .fill(ir::DType::kF32, reinterpret_cast<std::byte*>(x.data()), std::ssize(x), random);
  std::set<std::vector<float>> rows;
  double squares = 0;
  for (int64_t row = 0; row < kRows; ++row)
    rows.emplace(x.begin() + row * kWidth, x.begin() + (row + 1) * kWidth);
  for (const float value : x)
    squares += double{value} * value;
  EXPECT_EQ(std::ssize(rows), kRows);
  EXPECT_NEAR(squares / static_cast<double>(x.size()), 1, 0.01);
}

TEST(OpsHarness, CatchesAWrongElement) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             launch.out[0].as<float>()[20] *= 1.0001F;
                           }}),
                "element 20");
}

TEST(OpsHarness, CatchesAnElementNotWritten) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             for (int64_t i = 0; i < 20; ++i)
                               launch.out[0].as<float>()[i] = 2 * launch.in[0].as<float>()[i];
                           }}),
                "not written");
}

TEST(OpsHarness, CatchesAWriteBesideTheOutput) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             launch.out[0].as<float>()[21] = 0;
                           }}),
                "wrote beside output 0, at byte 84 of 84");
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             launch.out[0].as<float>()[-1] = 0;
                           }}),
                "wrote beside output 0, at byte -1 of 84");
}

TEST(OpsHarness, CatchesAWriteBesideTheWorkspace) {
  expect_caught(
      check({.name = "twice_fault",
             .workspace = [](const Launch&, const device::Properties&) -> int64_t { return 12; },
             .run =
                 [](const Launch& launch) {
                   twice(launch);
                   static_cast<char*>(launch.workspace)[12] = 1;
                 }}),
      "workspace, at byte 12 of 12");
}

TEST(OpsHarness, CatchesAChangedInput) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             launch.in[0].as<float>()[3] = 0;
                           }}),
                "changed input 0");
}

TEST(OpsHarness, CatchesAReadBehindTheInput) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             const float* x = launch.in[0].as<float>();
                             launch.out[0].as<float>()[20] = 2 * x[20] + 0 * x[21];
                           }}),
                "element 20: got nan");
}

TEST(OpsHarness, CatchesAnUninitialisedWorkspace) {
  expect_caught(
      check({.name = "twice_fault",
             .workspace = [](const Launch&, const device::Properties&) -> int64_t { return 4; },
             .run =
                 [](const Launch& launch) {
                   twice(launch);
                   launch.out[0].as<float>()[0] += static_cast<float*>(launch.workspace)[0];
                 }}),
      "element 0: got nan");
}

TEST(OpsHarness, CatchesDependenceOnThreads) {
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             // Far below the tolerance.
                             if (launch.pool().thread_count() > 1) {
                               launch.out[0].as<float>()[5] *= 1 + 0x1p-23F;
                             }
                           }}),
                "differs from the first run");
}

TEST(OpsHarness, CatchesDependenceOnEarlierRuns) {
  static int calls;
  calls = 0;
  expect_caught(check({.name = "twice_fault",
                       .run =
                           [](const Launch& launch) {
                             twice(launch);
                             if (++calls == 2) launch.out[0].as<float>()[5] *= 1 + 0x1p-23F;
                           }}),
                "differs from the first run");
}

TEST(OpsHarness, CatchesATacticThatNoCaseReaches) {
  const CheckReport report = check(
      {.name = "twice_fault",
       .why_not = [](const Launch&, const device::Properties&) { return std::string("no mood"); },
       .run = twice});
  ASSERT_EQ(report.failures.size(), 1U);
  EXPECT_NE(report.failures[0].what.find("no mood"), std::string::npos);
}

float* pool_of(const Launch& launch) {
  return reinterpret_cast<float*>(launch.out[0].as<KvCacheView>()->pool);
}

// A state op: writes 1 to the first element of its cache, which has `bytes`, or what `fault` makes
// of it.
CheckReport check_state(void (*fault)(const Launch&), size_t bytes = 16) {
  const auto write_one = [](const Launch& launch) { pool_of(launch)[0] = 1; };
  const Tactic tactics[] = {{.name = "twice_fault", .run = fault},
                            {.name = "twice_ref", .run = write_one}};
  const Op op = {.name = "twice",
                 .tactics = tactics,
                 .infer = same_type,
                 .parse_attrs = parse_attrs<NoAttributes>};
  const auto build = [bytes](Random&) {
    StateImage image;
    image.bytes.resize(bytes, std::byte{0xff});
    const float used = 3;
    std::memcpy(image.bytes.data() + 4, &used, 4);
    return image;
  };
  const auto device = device::make_cpu_device(1);
  CheckReport report;
  check_op(op, {{.name = "it's small", .attrs = {}, .inputs = {state(build)}}}, {}, *device,
           &report);
  return report;
}

TEST(OpsHarness, ComparesStates) {
  EXPECT_TRUE(check_state([](const Launch& launch) { pool_of(launch)[0] = 1; }).failures.empty());
  expect_caught(check_state([](const Launch& launch) {
                  float* p = pool_of(launch);
                  p[0] = 1;
                  p[1] = 3 * (1 + 0x1p-23F);
                }),
                "want 3 (not written)");
  expect_caught(check_state([](const Launch& launch) {
                  float* p = pool_of(launch);
                  p[0] = 1;
                  p[2] = 0;
                }),
                "element 2: got 0, want nan (not written)");
  expect_caught(check_state([](const Launch& launch) {
                  float* p = pool_of(launch);
                  p[0] = 1;
                  p[4] = 0;
                }),
                "wrote beside input 0, at byte 16 of 16");
}

// Larger than what is compared at once, and not a multiple of it.
TEST(OpsHarness, ComparesLargeStates) {
  constexpr size_t kBytes = (1 << 18) + 12;
  const auto right = [](const Launch& launch) { pool_of(launch)[0] = 1; };
  EXPECT_TRUE(check_state(right, kBytes).failures.empty());
  expect_caught(check_state(
                    [](const Launch& launch) {
                      float* p = pool_of(launch);
                      p[0] = 1;
                      p[40000] = p[65538] = 0;
                    },
                    kBytes),
                "element 40000: got 0, want nan (not written); 2 of 65539 are wrong");
  // What the reference wrote, 1, is what differences are relative to; not what lay there, 3.
  expect_caught(check_state([](const Launch& launch) { pool_of(launch)[0] = 1 + 4e-6F; }, kBytes),
                "element 0");
}

/// One test per op: all its tactics on all its cases.
class EveryOp : public ::testing::TestWithParam<const Op*> {};

TEST_P(EveryOp, AgreesWithItsReference) {
  const auto device = device::make_cpu_device(2);
  CheckReport report;
  check_ops({.op = GetParam()->name}, *device, &report);
  for (const CheckFailure& failure : report.failures)
    ADD_FAILURE() << to_string(failure);
  for (const UntriedTactic& untried : report.untried) {
    std::cout << "[   NOTE   ] not tried here: " << untried.tactic << ": " << untried.why_not
              << '\n';
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, EveryOp, ::testing::ValuesIn(all_ops().begin(), all_ops().end()),
                         [](const auto& test) { return std::string(test.param->name); });

}  // namespace
}  // namespace millrace::ops
