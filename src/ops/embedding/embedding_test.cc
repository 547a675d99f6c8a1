#include "ops/embedding/embedding.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(Embedding, TakesRows) {
  const HostTensor table = host_floats({4, 2}, {0, 1, 10, 11, 20, 21, 30, 31}, kBF16);
  expect_near(call_op("embedding", {}, {host_ints({3}, {2, 0, 3}), table})[0],
              {20, 21, 0, 1, 30, 31}, 0);
  expect_near(call_op("embedding", to_attrs(Embedding{.dtype = "f16", .offset = 2}),
                      {host_ints({2}, {1, 0}), table})[0],
              {30, 31, 20, 21}, 0);
}

TEST(Embedding, IdsBeyondTheTableAreVirtualTokens) {
  const HostTensor table = host_floats({2, 2}, {0, 1, 10, 11});
  const HostTensor prompts = host_floats({2, 2, 2}, {20, 21, 30, 31, 40, 41, 50, 51});
  expect_near(call_op("embedding", {}, {host_ints({4}, {5, 1, 2, 4}), table, prompts})[0],
              {50, 51, 10, 11, 20, 21, 40, 41}, 0);
}

TEST(Embedding, RefusesWhatDoesNotFit) {
  const ir::TensorType ids{kI32, {"T"}}, table{kF16, {100, 8}};
  EXPECT_EQ(infer_types("embedding", {ids, table})[0], (ir::TensorType{kF32, {"T", 8}}));
  EXPECT_EQ(refusal("embedding", {{kF32, {"T"}}, table}),
            "ids is f32[T]; expected is i32 (embedding)");
  EXPECT_EQ(refusal("embedding", {ids, table}, to_attrs(Embedding{.dtype = "i8"})),
            "no output type: \"i8\" (embedding)");
  EXPECT_EQ(refusal("embedding", {ids, table, {kF32, {"R", 4, 7}}}),
            "prompts is f32[R, 4, 7]; expected is the shape [R, 4, 8] (embedding)");
}

}  // namespace
}  // namespace millrace::ops
