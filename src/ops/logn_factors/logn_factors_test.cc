#include "ops/logn_factors/logn_factors.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

// Python: math.log(p + 1, 24) beyond 24 tokens.
TEST(LognFactors, AreOneUpToTheLengthAndLogarithmsBehind) {
  const auto out = call_op("logn_factors", to_attrs(LognFactors{.length = 24}),
                           {host_ints({6}, {0, 22, 23, 24, 59, 699})});
  expect_near(out[0], {1, 1, 1, 1.0128449663534445, 1.2883181911911905, 2.0613497079519782}, 1e-7);
}

TEST(LognFactors, ChecksItsInputs) {
  const ir::TensorType positions{ir::DType::kI32, {"T"}};
  EXPECT_EQ(infer_types("logn_factors", {positions}, to_attrs(LognFactors{.length = 2048})),
            (std::vector<ir::TensorType>{{ir::DType::kF32, {"T", 1}}}));
  EXPECT_NE(refusal("logn_factors", {positions}, to_attrs(LognFactors{.length = 1})).find("length"),
            std::string::npos);
  EXPECT_NE(refusal("logn_factors", {{ir::DType::kF32, {"T"}}}, to_attrs(LognFactors{.length = 9}))
                .find("position_ids"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
