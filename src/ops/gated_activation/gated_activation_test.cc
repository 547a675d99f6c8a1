#include "ops/gated_activation/gated_activation.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch in float64: silu(gate) * up and gelu(gate) * up.
TEST(GatedActivation, EqualsTorch) {
  const HostTensor gate_up = host_floats({2, 6}, {0.5F, -1.25F, 2, 2, -1, 0.5F,  //
                                                  -3, 0.75F, 1, 1, 4, -0.25F});
  const auto call = [&](const char* kind) {
    return call_op("gated_activation", to_attrs(GatedActivation{.kind = kind}), {gate_up})[0];
  };
  EXPECT_EQ(call("silu").shape, (std::vector<int64_t>{2, 3}));
  expect_near(call("silu"), {0.6224593312018546, 0.27837517353163604, 0.8807970779778823,
                             -0.14227761953270035, 2.037536097526179, -0.18276464465750122});
  expect_near(call("gelu"), {0.6914624612740131, 0.13206221708356905, 0.9772498680518208,
                             -0.00404969409489031, 2.3201179428693957, -0.21033618651713576});
  expect_near(call("gelu_pytorch_tanh"),
              {0.6914280196502879, 0.13228579703028542, 0.9772988470438875, -0.0036373920817729943,
               2.319842220662481, -0.2102979976520692});
}

TEST(GatedActivation, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("gated_activation", {{kBF16, {"T", 10}}})[0],
            (ir::TensorType{kBF16, {"T", 5}}));
  EXPECT_EQ(infer_types("gated_activation", {{kBF16, {"T", 2, 10}}})[0],
            (ir::TensorType{kBF16, {"T", 2, 5}}));
  EXPECT_EQ(refusal("gated_activation", {{kF32, {"T", 9}}}),
            "gate_up is f32[T, 9]; expected is an even number of columns (gated_activation)");
}

}  // namespace
}  // namespace millrace::ops
