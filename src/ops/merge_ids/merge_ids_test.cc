#include "ops/merge_ids/merge_ids.h"

#include <gtest/gtest.h>

#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

TEST(MergeIds, NegativeIdsNamePlaces) {
  const HostTensor ids = host_ints({5}, {7, -1, 0, -6, -3});
  const HostTensor last_ids = host_ints({2, 3}, {100, 101, 102, 103, 104, 105});
  EXPECT_EQ(call_op("merge_ids", {}, {ids, last_ids})[0].ints(),
            (std::vector<int32_t>{7, 100, 0, 105, 102}));
}

TEST(MergeIds, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("merge_ids", {{kI32, {"T"}}, {kI32, {"R", 64}}})[0],
            (ir::TensorType{kI32, {"T"}}));
  EXPECT_EQ(refusal("merge_ids", {{kI64, {"T"}}, {kI32, {"R"}}}),
            "ids is i64[T]; expected is i32 (merge_ids)");
}

}  // namespace
}  // namespace millrace::ops
