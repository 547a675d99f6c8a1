#include "ops/slice_cols/slice_cols.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(SliceCols, TakesColumns) {
  const HostTensor x = host_floats({2, 4}, {0, 1, 2, 3, 10, 11, 12, 13});
  expect_near(call_op("slice_cols", to_attrs(SliceCols{.begin = 1, .end = 3}), {x})[0],
              {1, 2, 11, 12}, 0);
}

TEST(SliceCols, RefusesWhatDoesNotFit) {
  const auto slice = [](int begin, int end) {
    return to_attrs(SliceCols{.begin = begin, .end = end});
  };
  const ir::TensorType x{kF32, {"T", 8}};
  EXPECT_EQ(infer_types("slice_cols", {x}, slice(2, 8))[0], (ir::TensorType{kF32, {"T", 6}}));
  EXPECT_EQ(refusal("slice_cols", {x}, slice(2, 9)),
            "x is f32[T, 8]; expected is a width that columns 2 to 9 lie in (slice_cols)");
  EXPECT_NE(refusal("slice_cols", {x}, slice(3, 3)), "");
  EXPECT_NE(refusal("slice_cols", {x}, slice(-1, 3)), "");
}

}  // namespace
}  // namespace millrace::ops
