#include "ops/unfold_frames/unfold_frames.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

// Two sequences, of frames 1, 2 and 3, 4, 5, 6; two columns, the second ten times the first.
const HostTensor kFrames = host_floats({6, 2}, {1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60});
const HostTensor kStart = host_ints({2}, {0, 1}), kLength = host_ints({2}, {1, 2});

TEST(UnfoldFrames, PutsNeighboursSideBySide) {
  const auto out =
      call_op("unfold_frames", to_attrs(UnfoldFrames{}), {kFrames, kStart, kLength})[0];
  EXPECT_EQ(out.floats(), (std::vector<float>{0, 1, 2, 0,  10, 20,  //
                                              1, 2, 0, 10, 20, 0,   //
                                              0, 3, 4, 0,  30, 40,  //
                                              3, 4, 5, 30, 40, 50,  //
                                              4, 5, 6, 40, 50, 60,  //
                                              5, 6, 0, 50, 60, 0}));
}

TEST(UnfoldFrames, TakesEverySecondFrame) {
  const auto out = call_op("unfold_frames", to_attrs(UnfoldFrames{.stride = 2}),
                           {kFrames, kStart, kLength, host_ints({3}, {0, 0, 1})})[0];
  EXPECT_EQ(out.floats(), (std::vector<float>{0, 1, 2, 0, 10, 20,  //
                                              0, 3, 4, 0, 30, 40,  //
                                              4, 5, 6, 40, 50, 60}));
}

TEST(UnfoldFrames, ChecksItsInputs) {
  const ir::TensorType x{ir::DType::kF32, {"F", 8}}, owners{ir::DType::kI32, {"S"}};
  const ir::TensorType rows{ir::DType::kI32, {"T"}};
  const auto stride = [](int n) { return to_attrs(UnfoldFrames{.stride = n}); };
  EXPECT_EQ(infer_types("unfold_frames", {x, owners, owners}, stride(1))[0].shape,
            (ir::Shape{"F", 24}));
  EXPECT_EQ(infer_types("unfold_frames", {x, owners, owners, rows}, stride(2))[0].shape,
            (ir::Shape{"T", 24}));
  EXPECT_NE(refusal("unfold_frames", {x, owners, owners}, stride(3)).find("stride"),
            std::string::npos);
  EXPECT_NE(refusal("unfold_frames", {x, owners, owners}, stride(2)), "");
  EXPECT_NE(refusal("unfold_frames", {owners, owners, owners}, stride(1)).find("x"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
