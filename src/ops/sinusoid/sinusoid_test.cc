#include "ops/sinusoid/sinusoid.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

// numpy 2: sin and cos of p / 10000 ** (2 * i / 5) in float64, p = 0, 1, 700.
TEST(Sinusoid, IsNumpys) {
  const auto out = call_op("sinusoid", to_attrs(Sinusoid{.dim = 5}), {host_ints({3}, {0, 1, 700})});
  expect_near(out[0],
              {0, 0, 0, 1, 1,  //
               0.8414709848078965, 0.025116222909773774, 0.0006309573026154199, 0.5403023058681398,
               0.9996845379152098,  //
               0.5439705233633756, -0.9540133407206207, 0.42744993328269804, -0.8391043258807425,
               0.29976415016989744},
              1e-7);
}

TEST(Sinusoid, ChecksItsInputs) {
  const ir::TensorType ids{ir::DType::kI32, {"T"}};
  EXPECT_EQ(infer_types("sinusoid", {ids}, to_attrs(Sinusoid{.dim = 6, .dtype = "bf16"})),
            (std::vector<ir::TensorType>{{ir::DType::kBF16, {"T", 6}}}));
  EXPECT_NE(refusal("sinusoid", {ids}, to_attrs(Sinusoid{.dim = 0})).find("dim"),
            std::string::npos);
  EXPECT_NE(refusal("sinusoid", {ids}, to_attrs(Sinusoid{.dim = 2, .dtype = "i32"})).find("dtype"),
            std::string::npos);
  EXPECT_NE(refusal("sinusoid", {{ir::DType::kF32, {"T"}}}, to_attrs(Sinusoid{.dim = 2}))
                .find("position_ids"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
