#include "ops/moe_combine/moe_combine.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(MoeCombine, AddsWeightedRows) {
  const HostTensor y = host_floats({2, 2, 3}, {1, 2, 3, 10, 20, 30, -1, 0, 1, 4, 8, 12});
  const HostTensor weights = host_floats({2, 2}, {0.5F, 0.25F, 2, -0.5F});
  const HostTensor out = call_op("moe_combine", {}, {y, weights})[0];
  EXPECT_EQ(out.shape, (std::vector<int64_t>{2, 3}));
  expect_near(out, {3, 6, 9, -4, -4, -4}, 0);
}

TEST(MoeCombine, TakesRowsOfOneExpertFlat) {
  const HostTensor out = call_op(
      "moe_combine", {}, {host_floats({2, 2}, {1, 2, 3, 4}), host_floats({2, 1}, {0.5F, -2})})[0];
  expect_near(out, {0.5, 1, -6, -8}, 0);
}

TEST(MoeCombine, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("moe_combine", {{kBF16, {"T", 2, 8}}, {kF32, {"T", 2}}})[0],
            (ir::TensorType{kBF16, {"T", 8}}));
  EXPECT_EQ(refusal("moe_combine", {{kBF16, {"T", 8}}, {kF32, {"T", 2}}}),
            "y is bf16[T, 8]; expected is the shape [T, 2, 8] (moe_combine)");
  EXPECT_EQ(refusal("moe_combine", {{kBF16, {"T", 2, 8}}, {kBF16, {"T", 2}}}),
            "weights is bf16[T, 2]; expected is f32 (moe_combine)");
}

}  // namespace
}  // namespace millrace::ops
