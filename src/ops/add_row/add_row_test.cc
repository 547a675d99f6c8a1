#include "ops/add_row/add_row.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

TEST(AddRow, AddsToEveryRow) {
  const auto out = call_op("add_row", {},
                           {host_floats({2, 3}, {1, 2, 3, 4, 5, 6}),
                            host_floats({1, 3}, {10, 20, 30}, ir::DType::kBF16)});
  EXPECT_EQ(out[0].floats(), (std::vector<float>{11, 22, 33, 14, 25, 36}));
}

TEST(AddRow, ChecksItsInputs) {
  const ir::TensorType x{ir::DType::kBF16, {"T", 8}};
  EXPECT_EQ(infer_types("add_row", {x, {ir::DType::kF32, {1, 8}}}),
            (std::vector<ir::TensorType>{x}));
  EXPECT_NE(refusal("add_row", {x, {ir::DType::kF32, {1, 7}}}).find("row"), std::string::npos);
  EXPECT_NE(refusal("add_row", {{ir::DType::kI32, {"T", 8}}, {ir::DType::kF32, {1, 8}}}).find("x"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
