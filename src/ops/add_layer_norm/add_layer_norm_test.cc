#include "ops/add_layer_norm/add_layer_norm.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch.nn.functional.layer_norm(x + residual, ..., eps = 1e-5) in float64.
TEST(AddLayerNorm, EqualsTorch) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            11.5F, 12, 11, 12.25F, 11.75F});
  const HostTensor residual = host_floats({2, 5}, {1, 0.5F, -0.25F, 2, 1.5F,  //
                                                   -1, 0.25F, 0.5F, -2, 3});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  const HostTensor bias = host_floats({5}, {0.1F, -0.2F, 0.3F, 0, 1});
  const auto out = call_op("add_layer_norm", {}, {x, residual, weight, bias});
  expect_near(out[0], {1.5, -0.75, 1.75, 2.75, -1.5, 10.5, 12.25, 11.5, 10.25, 14.75}, 0);
  expect_near(out[1],
              {0.5673818085908245, -0.6673818100809407, -0.9463514736809602, 1.8695272284028337,
               -0.40214542130212516, -0.7348281613208463, -0.07632175663786729, 0.7328738741192055,
               -1.4841389561083778, 2.7933345719642904});
  const auto shifted =
      call_op("add_layer_norm", to_attrs(AddLayerNorm{.weight_offset = 1}), {x, residual, weight});
  expect_near(shifted[1],
              {0.9347636142014168, -1.4021454213021252, -0.6231757428009446, 3.115878714004723,
               -2.8042908426042503, -1.6696563256219248, 0.37103473902709483, 0.21643693109913825,
               -2.4735649268472963, 3.5866691439285807});
  const auto plain = call_op("add_layer_norm", {}, {x, residual});
  expect_near(plain[1],
              {0.4673818071007084, -0.9347636142014168, 0.6231757428009446, 1.2463514856018891,
               -1.4021454213021252, -0.8348281628109624, 0.2473564926847299, -0.21643693109913825,
               -0.9894259707389185, 1.7933345719642904});
}

TEST(AddLayerNorm, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kF32, {"T", 8}};
  EXPECT_EQ(infer_types("add_layer_norm", {x, x, {kF32, {8}}}),
            (std::vector<ir::TensorType>{x, x}));
  EXPECT_EQ(refusal("add_layer_norm", {x, x, {kF32, {7}}}),
            "weight is f32[7]; expected is the shape [8] (add_layer_norm)");
}

}  // namespace
}  // namespace millrace::ops
