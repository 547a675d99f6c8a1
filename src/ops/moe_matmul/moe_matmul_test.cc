#include "ops/moe_matmul/moe_matmul.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

// Two experts, [N, K] = [2, 3], small whole numbers: products by hand.
const std::vector<float> kWeight = {1, 0, 2, 0,  1, -1,  //
                                    3, 1, 0, -1, 0, 4};

TEST(MoeMatmul, SendsEachTokenThroughItsExperts) {
  const HostTensor x = host_floats({2, 3}, {1, 2, 3, -1, 0, 5});
  const HostTensor ids = host_ints({2, 2}, {1, 0, 1, 1});
  const auto attrs = to_attrs(MoeMatmul{.experts = 2});
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{4, 3}, {2, 2, 3}}) {
    const HostTensor out = call_op("moe_matmul", attrs, {x, ids, host_floats(shape, kWeight)})[0];
    EXPECT_EQ(out.shape, (std::vector<int64_t>{2, 2, 2}));
    expect_near(out, {5, 11, 7, -1, -3, 21, -3, 21}, 0);
  }
}

TEST(MoeMatmul, TakesARowForEachChoiceAndABias) {
  const HostTensor x = host_floats({1, 2, 3}, {1, 2, 3, -1, 0, 5});
  const HostTensor ids = host_ints({1, 2}, {1, 0});
  const HostTensor bias = host_floats({2, 2}, {0.5F, -0.5F, 100, 200});
  const HostTensor out = call_op("moe_matmul", to_attrs(MoeMatmul{.experts = 2, .bias = true}),
                                 {x, ids, host_floats({4, 3}, kWeight), bias})[0];
  expect_near(out, {105, 211, 9.5, -5.5}, 0);
}

TEST(MoeMatmul, RefusesWhatDoesNotFit) {
  const auto attrs = to_attrs(MoeMatmul{.experts = 4, .dtype = "bf16"});
  const ir::TensorType x{kBF16, {"T", 8}}, ids{kI32, {"T", 2}}, weight{kBF16, {40, 8}};
  EXPECT_EQ(infer_types("moe_matmul", {x, ids, weight}, attrs)[0],
            (ir::TensorType{kBF16, {"T", 2, 10}}));
  EXPECT_EQ(infer_types("moe_matmul", {{kBF16, {"T", 2, 8}}, ids, {kBF16, {4, 10, 8}}}, attrs)[0],
            (ir::TensorType{kBF16, {"T", 2, 10}}));
  EXPECT_EQ(refusal("moe_matmul", {x, ids, {kBF16, {42, 8}}}, attrs),
            "the weight is bf16[42, 8]; expected is the stacked weights of 4 experts (moe_matmul)");
  EXPECT_EQ(refusal("moe_matmul", {{kBF16, {"T", 9}}, ids, weight}, attrs),
            "x is bf16[T, 9]; expected is the shape [T, 8] (moe_matmul)");
  EXPECT_EQ(refusal("moe_matmul", {x, ids, weight, weight}, attrs),
            "4 inputs instead of 3 (moe_matmul)");
}

}  // namespace
}  // namespace millrace::ops
