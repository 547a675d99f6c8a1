#include "ops/rms_norm/rms_norm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "millrace/error.h"
#include "ops/harness/op_call.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

// The formula of transformers' LlamaRMSNorm in float64 (torch), eps 1e-5.
TEST(RmsNorm, EqualsTransformers) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            1e-3F, 2e-3F, -1e-3F, 0, 1e-3F});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  const std::vector<double> want = {0.28513251062637884, -0.35641563828297357, -2.2810600850110307,
                                    0.6415481489093524,  -1.710795063758273,   0.29617443887954614,
                                    0.29617443887954614, 0.5923488777590923,   0.0,
                                    0.29617443887954614};
  const std::vector<float> got =
      call_op("rms_norm", to_attrs(RmsNorm{.eps = 1e-5}), {x, weight})[0].floats();
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 2e-7 * std::fabs(want[i])) << i;
}

TEST(RmsNorm, RefusesWrongInputs) {
  const auto infer = [](std::vector<ir::TensorType> types) {
    return find_op("rms_norm")->infer(types, {});
  };
  const ir::TensorType x{ir::DType::kF32, {"T", 384}};
  EXPECT_EQ(infer({x, {ir::DType::kBF16, {384}}})[0], x);
  EXPECT_THROW(infer({x}), Error);
  EXPECT_THROW(infer({x, {ir::DType::kI32, {384}}}), Error);
  try {
    infer({x, {ir::DType::kF32, {12}}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "weight is f32[12]; expected is the shape [384] (rms_norm)");
  }
}

}  // namespace
}  // namespace millrace::ops
