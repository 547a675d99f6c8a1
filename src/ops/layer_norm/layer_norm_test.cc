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

// The same with weight + 1 (Nemotron's layernorm1p), and without weight and bias (OLMo).
TEST(LayerNorm, TakesAnOffsetOrNoWeights) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            11.5F, 12, 11, 12.25F, 11.75F});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  const HostTensor bias = host_floats({5}, {0.1F, -0.2F, 0.3F, 0, 1});
  expect_near(call_op("layer_norm", to_attrs(LayerNorm{.weight_offset = 1}), {x, weight, bias})[0],
              {0.9036148866811184, -1.10406674882011, -0.9628233790935035, 1.3632752516633075,
               -2.2144595407640093, -0.8299559748547669, 0.8462004704077675, 1.9274229705244785,
               3.196723668685551, 1.232488994086225});
  expect_near(call_op("layer_norm", {}, {x})[0],
              {0.40180744259550116, -0.6027111638932517, 1.2628233910144324, 0.545310100665323,
               -1.6072297703820047, -0.4649779881724415, 0.6974669822586664, -1.6274229586035496,
               1.2786894674742204, 0.11624449704311245});
}

// Two groups of three: as torch normalises [2, 2, 3], eps 1e-5, float64.
TEST(LayerNorm, TakesGroups) {
  const HostTensor x = host_floats({2, 6}, {0.5F, -1.25F, 2, 0.75F, -3, 1,  //
                                            11.5F, 12, 11, 12.25F, 11.75F, -2});
  const HostTensor weight = host_floats({2, 3}, {1, 0.5F, -2, 1.5F, 1, 3});
  const HostTensor shared = host_floats({3}, {1, 0.5F, -2});
  const ir::Attrs attrs = to_attrs(LayerNorm{.groups = 2});
  expect_near(call_op("layer_norm", attrs, {x, weight})[0],
              {0.06274540265308402, -0.6274540265308404, -2.3843253008171934, 0.9565223603869668,
               -1.412009198666475, 2.322982875225491, 0.0, 0.6123540653493851, 2.4494162613975403,
               1.1169469979763424, 0.6689061117824423, -4.240612331300011});
  expect_near(call_op("layer_norm", attrs, {x, shared})[0],
              {0.06274540265308402, -0.6274540265308404, -2.3843253008171934, 0.6376815735913112,
               -0.7060045993332374, -1.5486552501503272, 0.0, 0.6123540653493851,
               2.4494162613975403, 0.7446313319842283, 0.33445305589122115, 2.8270748875333407});
}

TEST(LayerNorm, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kF32, {"T", 8}};
  EXPECT_EQ(infer_types("layer_norm", {x, {kBF16, {8}}})[0], x);
  EXPECT_EQ(refusal("layer_norm", {}),
            "0 inputs; expected are: x, weight, bias (the last 2 may be left out) (layer_norm)");
  EXPECT_EQ(refusal("layer_norm", {x, {kBF16, {8}}, {kF32, {8}}}),
            "bias is f32[8]; expected is bf16[8], the type of weight (layer_norm)");
  EXPECT_EQ(refusal("layer_norm", {x}, to_attrs(LayerNorm{.groups = 3})),
            "x is f32[T, 8]; expected is a row of 3 equal groups (layer_norm)");
  EXPECT_EQ(refusal("layer_norm", {x, {kF32, {4, 2}}}, to_attrs(LayerNorm{.groups = 2})),
            "weight is f32[4, 2]; expected is the shape [8], [2, 4] or [4] for 2 groups "
            "(layer_norm)");
}

}  // namespace
}  // namespace millrace::ops
