#include "ops/rescale/rescale.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch in float64: x / 16, 30 tanh(x / 30), clamp(5 tanh(2x / 5), -3, 4.5).
TEST(Rescale, EqualsTorch) {
  const HostTensor x = host_floats({10}, {-200, -30, -3.5F, -0.25F, 1e-3F, 0, 0.3F, 2, 40, 1000});
  const auto call = [&](const Rescale& attrs) {
    return call_op("rescale", to_attrs(attrs), {x})[0];
  };
  expect_near(call({.factor = 0.0625}),
              {-12.5, -1.875, -0.21875, -0.015625, 6.25e-05, 0, 0.01875, 0.125, 2.5, 62.5}, 1e-7);
  expect_near(
      call({.softcap = 30}),
      {-29.999902824349846, -22.847824678672946, -3.4842063524371976, -0.2499942131237095,
       0.0009999999996296296, 0, 0.2999900003999838, 1.997042295067877, 26.101849852280157, 30},
      1e-7);
  expect_near(call({.factor = 2, .softcap = 5, .low = -3, .high = 4.5}),
              {-3, -3, -3, -0.49833997312477907, 0.00199999989333334, 0, 0.5971364926719294,
               3.320183851339245, 4.5, 4.5},
              2e-7);
}

TEST(Rescale, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kBF16, {"T", 5}};
  const auto refused = [&](const Rescale& attrs) {
    return refusal("rescale", {x}, to_attrs(attrs));
  };
  EXPECT_EQ(infer_types("rescale", {x})[0], x);
  EXPECT_EQ(refusal("rescale", {{kI32, {4}}}),
            "x is i32[4]; expected is f32, bf16 or f16 (rescale)");
  EXPECT_EQ(refused({.softcap = -1}), "softcap must be 0 or a positive number, got -1 (rescale)");
  EXPECT_EQ(refused({.low = 2, .high = 1}), "low is 2, which is above high, 1 (rescale)");
}

}  // namespace
}  // namespace millrace::ops
