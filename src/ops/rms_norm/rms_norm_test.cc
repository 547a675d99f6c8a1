#include "ops/rms_norm/rms_norm.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// The formula of transformers' LlamaRMSNorm in float64 (torch), eps 1e-5.
TEST(RmsNorm, EqualsTransformers) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            1e-3F, 2e-3F, -1e-3F, 0, 1e-3F});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  expect_near(call_op("rms_norm", to_attrs(RmsNorm{.eps = 1e-5}), {x, weight})[0],
              {0.28513251062637884, -0.35641563828297357, -2.2810600850110307, 0.6415481489093524,
               -1.710795063758273, 0.29617443887954614, 0.29617443887954614, 0.5923488777590923,
               0.0, 0.29617443887954614},
              1e-7);
}

// x * rsqrt(mean(x^2) + eps) * (1 + weight), the formula of transformers' GemmaRMSNorm, in float64.
TEST(RmsNorm, AddsTheOffsetToItsWeight) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            11.5F, 12, 11, 12.25F, 11.75F});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  expect_near(call_op("rms_norm", to_attrs(RmsNorm{.weight_offset = 1}), {x, weight})[0],
              {0.5702650212527577, -1.0692469148489208, -1.1405300425055154, 1.0692469148489205,
               -3.421590127516546, 1.9644848906786843, 1.5374229579224483, -0.9395362520637185,
               2.6157543381319437, 2.0071910839543077});
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kF32, {"T", 384}};
  EXPECT_EQ(infer_types("rms_norm", {x, {kBF16, {384}}})[0], x);
  EXPECT_EQ(refusal("rms_norm", {x}), "1 input; expected are: x, weight (rms_norm)");
  EXPECT_EQ(refusal("rms_norm", {x, {kI32, {384}}}),
            "weight is i32[384]; expected is f32, bf16 or f16 (rms_norm)");
  EXPECT_EQ(refusal("rms_norm", {x, {kF32, {12}}}),
            "weight is f32[12]; expected is the shape [384] (rms_norm)");
  EXPECT_EQ(refusal("rms_norm", {{kF32, {384}}, {kF32, {384}}}),
            "x is f32[384]; expected is 2 dimensions (rms_norm)");
}

}  // namespace
}  // namespace millrace::ops
