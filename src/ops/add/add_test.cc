#include "ops/add/add.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(Add, IsTheOperator) {
  for (const ir::DType dtype : {kF32, kBF16, kF16}) {
    const HostTensor a = host_floats({3}, {3, 1.5F, -2}, dtype);
    const HostTensor b = host_floats({3}, {0.5F, -4, 6}, dtype);
    expect_near(call_op("add", to_attrs(Add{}), {a, b})[0], {3.5, -2.5, 4}, 0);
  }
}

TEST(Add, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("add", {{kF32, {"T", 4}}, {kF32, {"T", 4}}})[0],
            (ir::TensorType{kF32, {"T", 4}}));
  EXPECT_EQ(refusal("add", {{kF32, {"T", 4}}, {kF32, {"T", 5}}}),
            "b is f32[T, 5]; expected is f32[T, 4], the type of a (add)");
}

}  // namespace
}  // namespace millrace::ops
