#include "ops/moe_route/moe_route.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// Expected numbers: torch in float64, by the formulas of the papers.
const HostTensor kLogits = host_floats(
    {2, 8}, {0.5F, -1.25F, 2, 0.75F, 1.5F, -0.5F, 0.25F, 1.75F, 1, 1, 3, -2, 0.5F, 2.5F, -1, 0});

TEST(MoeRoute, SoftmaxOverAllExperts) {
  const auto out = call_op("moe_route", to_attrs(MoeRoute{.experts_per_token = 3}), {kLogits});
  EXPECT_EQ(out[0].ints(), (std::vector<int32_t>{2, 7, 4, 2, 5, 0}));
  expect_near(out[1], {0.31351898080574275, 0.24416882775926121, 0.1901588742605396,
                       0.49161141829040667, 0.2981773978579437, 0.06653237053668506});
}

TEST(MoeRoute, SoftmaxOverTheChosenExperts) {
  const auto out = call_op(
      "moe_route", to_attrs(MoeRoute{.experts_per_token = 3, .normalise = true}), {kLogits});
  EXPECT_EQ(out[0].ints(), (std::vector<int32_t>{2, 7, 4, 2, 5, 0}));
  expect_near(out[1], {0.4192289516096977, 0.3264958357998367, 0.2542752125904656,
                       0.5740969929676946, 0.3482074278837349, 0.07769557914857059});
}

TEST(MoeRoute, DeepSeekV2ChoosesInTheBestGroups) {
  const auto out = call_op(
      "moe_route",
      to_attrs(MoeRoute{.experts_per_token = 3, .scale = 16, .groups = 4, .kept_groups = 2}),
      {kLogits});
  EXPECT_EQ(out[0].ints(), (std::vector<int32_t>{2, 7, 3, 2, 5, 4}));
  expect_near(out[1], {5.016303692891884, 3.9067012441481794, 1.4371950705210106, 7.865782692646507,
                       4.7708383657271, 0.6456627615017755});
}

TEST(MoeRoute, DeepSeekV3sBiasChoosesAndDoesNotWeigh) {
  const HostTensor bias = host_floats({8}, {0.3F, -0.2F, -0.4F, 0.1F, 0.25F, 0.5F, -0.1F, -0.6F});
  const auto out = call_op("moe_route",
                           to_attrs(MoeRoute{.experts_per_token = 2,
                                             .scores = "sigmoid",
                                             .normalise = true,
                                             .scale = 2.5,
                                             .bias = true,
                                             .groups = 2,
                                             .group_score = "top2"}),
                           {kLogits, bias});
  EXPECT_EQ(out[0].ints(), (std::vector<int32_t>{4, 5, 5, 4}));
  expect_near(out[1],
              {1.7102420624902646, 0.7897579375097352, 1.493826994880524, 1.006173005119476});
}

TEST(MoeRoute, OfEqualChoicesTheLowerIdComesFirst) {
  const HostTensor equal = host_floats({1, 6}, {1, 2, 0, 2, 2, 1});
  const auto out = call_op("moe_route", to_attrs(MoeRoute{.experts_per_token = 4}), {equal});
  EXPECT_EQ(out[0].ints(), (std::vector<int32_t>{1, 3, 4, 0}));
}

TEST(MoeRoute, RefusesWhatDoesNotFit) {
  const auto types =
      infer_types("moe_route", {{kF32, {"T", 8}}}, to_attrs(MoeRoute{.experts_per_token = 2}));
  EXPECT_EQ(types[0], (ir::TensorType{kI32, {"T", 2}}));
  EXPECT_EQ(types[1], (ir::TensorType{kF32, {"T", 2}}));
  const auto refuse = [](const MoeRoute& a) {
    return refusal("moe_route", {{kF32, {"T", 8}}}, to_attrs(a));
  };
  EXPECT_EQ(refuse({.experts_per_token = 9}),
            "experts_per_token is 9, of 8 experts to choose from (moe_route)");
  EXPECT_EQ(refuse({.groups = 3}), "8 experts cannot form 3 equal groups (moe_route)");
  EXPECT_EQ(refuse({.groups = 2, .kept_groups = 3}), "kept_groups is 3 of 2 (moe_route)");
  EXPECT_EQ(refuse({.scores = "tanh"}),
            "unknown scores \"tanh\" (moe_route); use softmax or sigmoid");
  EXPECT_EQ(refuse({.bias = true}), "1 inputs instead of 2 (moe_route)");
}

}  // namespace
}  // namespace millrace::ops
