#include "ops/layer_norm/layer_norm.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch.nn.functional.layer_norm in float64, eps 1e-5.
TEST(LayerNorm, EqualsTorch) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            11.5F, 12, 11, 12.25F, 11.75F});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  const HostTensor bias = host_floats({5}, {0.1F, -0.2F, 0.3F, 0, 1});
  expect_near(call_op("layer_norm", {}, {x, weight, bias})[0],
              {0.5018074440856173, -0.5013555849268581, -2.225646770107936, 0.8179651509979846,
               -0.6072297703820047, -0.3649779866823254, 0.14873348814910098, 3.554845929128028,
               1.9180342012113307, 1.1162444970431125});
  expect_near(call_op("layer_norm", {}, {x, weight})[0],
              {0.40180744259550116, -0.3013555819466259, -2.525646782028865, 0.8179651509979846,
               -1.6072297703820047, -0.4649779881724415, 0.3487334911293332, 3.254845917207099,
               1.9180342012113307, 0.11624449704311245});
}

TEST(LayerNorm, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kF32, {"T", 8}};
  EXPECT_EQ(infer_types("layer_norm", {x, {kBF16, {8}}})[0], x);
  EXPECT_EQ(refusal("layer_norm", {x}),
            "1 input; expected are: x, weight, bias (the last 1 may be left out) (layer_norm)");
  EXPECT_EQ(refusal("layer_norm", {x, {kBF16, {8}}, {kF32, {8}}}),
            "bias is f32[8]; expected is bf16[8], the type of weight (layer_norm)");
}

}  // namespace
}  // namespace millrace::ops
