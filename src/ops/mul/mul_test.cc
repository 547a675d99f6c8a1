#include "ops/mul/mul.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(Mul, IsTheOperator) {
  for (const ir::DType dtype : {kF32, kBF16, kF16}) {
    const HostTensor a = host_floats({3}, {3, 1.5F, -2}, dtype);
    const HostTensor b = host_floats({3}, {0.5F, -4, 6}, dtype);
    expect_near(call_op("mul", to_attrs(Mul{}), {a, b})[0], {1.5, -6, -12}, 0);
  }
}

TEST(Mul, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("mul", {{kF32, {"T", 4}}, {kF32, {"T", 4}}})[0],
            (ir::TensorType{kF32, {"T", 4}}));
  EXPECT_EQ(refusal("mul", {{kF32, {"T", 4}}, {kF32, {"T", 5}}}),
            "b is f32[T, 5]; expected is f32[T, 4], the type of a (mul)");
}

}  // namespace
}  // namespace millrace::ops
