#include "ops/add_rms_norm/add_rms_norm.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// torch.nn.functional.rms_norm(x + residual, weight, eps = 1e-5) in float64.
TEST(AddRmsNorm, EqualsTorch) {
  const HostTensor x = host_floats({2, 5}, {0.5F, -1.25F, 2, 0.75F, -3,  //
                                            11.5F, 12, 11, 12.25F, 11.75F});
  const HostTensor residual = host_floats({2, 5}, {1, 0.5F, -0.25F, 2, 1.5F,  //
                                                   -1, 0.25F, 0.5F, -2, 3});
  const HostTensor weight = host_floats({5}, {1, 0.5F, -2, 1.5F, 1});
  const auto out = call_op("add_rms_norm", {}, {x, residual, weight});
  expect_near(out[0], {1.5, -0.75, 1.75, 2.75, -1.5, 10.5, 12.25, 11.5, 10.25, 14.75}, 0);
  expect_near(out[1],
              {0.8468348058699912, -0.2117087014674978, -1.9759478803633126, 2.3287957161424755,
               -0.8468348058699912, 0.8779389729843194, 0.5121310675741864, -1.9231044170132714,
               1.2855534961556105, 1.233295223954163});
  // (1 + weight), as Gemma has it
  const auto shifted =
      call_op("add_rms_norm", to_attrs(AddRmsNorm{.weight_offset = 1}), {x, residual, weight});
  expect_near(shifted[1],
              {1.6936696117399823, -0.6351261044024934, -0.9879739401816563, 3.881326193570793,
               -1.6936696117399823, 1.7558779459686389, 1.536393202722559, -0.9615522085066357,
               2.142589160259351, 2.466590447908326});
}

TEST(AddRmsNorm, RefusesWhatDoesNotFit) {
  const ir::TensorType x{kF32, {"T", 8}};
  EXPECT_EQ(infer_types("add_rms_norm", {x, x, {kBF16, {8}}}), (std::vector<ir::TensorType>{x, x}));
  EXPECT_EQ(refusal("add_rms_norm", {x, {kBF16, {"T", 8}}, {kBF16, {8}}}),
            "residual is bf16[T, 8]; expected is f32[T, 8], the type of x (add_rms_norm)");
}

}  // namespace
}  // namespace millrace::ops
