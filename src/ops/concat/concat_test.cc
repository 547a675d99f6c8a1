#include "ops/concat/concat.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(Concat, StacksRows) {
  EXPECT_EQ(infer_types("concat", {{kBF16, {6, 4}}, {kBF16, {2, 4}}, {kBF16, {1, 4}}})[0],
            (ir::TensorType{kBF16, {9, 4}}));
  EXPECT_EQ(infer_types("concat", {{kF32, {6}}, {kF32, {2}}})[0], (ir::TensorType{kF32, {8}}));
}

TEST(Concat, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refusal("concat", {}), "no inputs; expected is at least one (concat)");
  EXPECT_EQ(refusal("concat", {{kF32, {6, 4}}, {kF32, {2, 5}}}),
            "input 1 is f32[2, 5], input 0 is f32[6, 4] (concat)");
  EXPECT_EQ(refusal("concat", {{kF32, {6, 4}}, {kF16, {2, 4}}}),
            "input 1 is f16[2, 4], input 0 is f32[6, 4] (concat)");
  EXPECT_EQ(refusal("concat", {{kF32, {6}}, {kF32, {}}}),
            "input 1 is f32[], input 0 is f32[6] (concat)");
  EXPECT_EQ(refusal("concat", {{kF32, {"T", 4}}}),
            "input 0 is f32[T, 4], of no fixed length (concat)");
}

}  // namespace
}  // namespace millrace::ops
