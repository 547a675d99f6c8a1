#include "ops/gather_rows/gather_rows.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(GatherRows, TakesRowsInTheOrderGiven) {
  const HostTensor x = host_floats({3, 2}, {0, 1, 10, 11, 20, 21});
  expect_near(call_op("gather_rows", {}, {x, host_ints({4}, {2, 0, 2, 1})})[0],
              {20, 21, 0, 1, 20, 21, 10, 11}, 0);
}

TEST(GatherRows, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("gather_rows", {{kBF16, {"T", 8}}, {kI32, {"S"}}})[0],
            (ir::TensorType{kBF16, {"S", 8}}));
  EXPECT_EQ(infer_types("gather_rows", {{kI32, {"T", 2, 3}}, {kI32, {"S"}}})[0],
            (ir::TensorType{kI32, {"S", 2, 3}}));
  EXPECT_EQ(refusal("gather_rows", {{kBF16, {"T", 8}}, {kI64, {"S"}}}),
            "rows is i64[S]; expected is i32 (gather_rows)");
}

}  // namespace
}  // namespace millrace::ops
