#include "ops/clamped_swiglu/clamped_swiglu.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch in float64.
TEST(ClampedSwiglu, EqualsTorch) {
  const HostTensor gate_up = host_floats({2, 1, 4}, {0.5F, -1.25F, 2, 8, 9, -9, -7.5F, 0.75F});
  const HostTensor out = call_op("clamped_swiglu", {}, {gate_up})[0];
  EXPECT_EQ(out.shape, (std::vector<int64_t>{2, 1, 2}));
  expect_near(
      out, {-0.08759710915159503, 15.485268985153667, -41.99971876981991, -3.7525717853212905e-05});
  expect_near(
      call_op("clamped_swiglu", to_attrs(ClampedSwiglu{.alpha = 0.5, .limit = 2}), {gate_up})[0],
      {-0.07027206261072476, 4.38635147178003, -1.4621171572600098, -0.3015779800690862});
}

TEST(ClampedSwiglu, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("clamped_swiglu", {{kBF16, {"T", 2, 8}}})[0],
            (ir::TensorType{kBF16, {"T", 2, 4}}));
  EXPECT_EQ(refusal("clamped_swiglu", {{kF32, {"T", 9}}}),
            "gate_up is f32[T, 9]; expected is an even number of columns (clamped_swiglu)");
}

}  // namespace
}  // namespace millrace::ops
