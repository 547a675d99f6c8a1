#include "ops/beam_reorder/beam_reorder.h"

#include <gtest/gtest.h>

#include "ops/common/beam_row.h"
#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;
using Ints = std::vector<int32_t>;

Ints reorder(const Ints& tables, const Ints& record, const Ints& parents, const Ints& tokens) {
  const auto k = std::ssize(parents) / 2;
  return call_op("beam_reorder", to_attrs(BeamReorder{.beams = static_cast<int>(k)}),
                 {host_ints({2, 3, std::ssize(tables) / 6}, tables), host_ints({1, 8}, record),
                  host_ints({1, 2 * k}, parents), host_ints({1, 2 * k}, tokens)})[0]
      .ints();
}

// Two beams in slots 1 and 2; both go on from the second.
TEST(BeamReorder, BeamsFollowTheirParents) {
  const Ints tables = {9,  9,  9, 9, 9,  //
                       5,  6,  7, 1, 0,  //
                       5,  6,  8, 2, 0,  //
                       0,  0,  0, 0, 0,  //
                       0,  0,  1, 0, 3,  //
                       -1, -1, 0, 0, 4};
  // One prompt token: position 0 stays as it is.
  EXPECT_EQ(reorder(tables, {1, 0, 2, 4, 1, 0, 0, 0}, {1, 1, 0, 0}, {33, 44, 0, 0}),
            (Ints{9,  9,  9, 9, 9,   //
                  5,  6,  8, 2, 33,  //
                  5,  6,  8, 2, 44,  //
                  0,  0,  0, 0, 0,   //
                  0,  0,  1, 1, 0,   // the second beam's blocks are one slot on
                  -1, -1, 0, 0, 0}));
}

// Whose blocks hold a position does not change when beams change places twice.
TEST(BeamReorder, TheHolderStaysTheSame) {
  Ints tables(30, 0);
  tables = reorder(tables, {0, 0, 2, 1, 0, 0, 0, 0}, {1, 0, 0, 0}, {7, 8, 0, 0});
  EXPECT_EQ(tables[15], 1) << "the first beam's past is in the second's blocks";
  EXPECT_EQ(tables[20], -1);
  tables = reorder(tables, {0, 0, 2, 2, 0, 0, 0, 0}, {1, 0, 0, 0}, {7, 8, 0, 0});
  EXPECT_EQ(tables[15], 0) << "and back";
  EXPECT_EQ(tables[20], 0);
  EXPECT_EQ(tables[16], 1) << "position 1 was written between";
}

TEST(BeamReorder, BehindThePromptAllBeamsHaveTheFirstOnesTokens) {
  const Ints tables = {5, 6, 0, 0, 4, 4, 0, 0, 3, 3, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
  EXPECT_EQ(reorder(tables, {1, 0, 1, 2, 2, 0, 0, 0}, {0, 0, 0, 0}, {11, 12, 0, 0}),
            (Ints{5, 6, 0, 0, 4, 4, 11, 0, 4,  4,  12, 0,  //
                  9, 9, 9, 9, 0, 0, 0,  9, -1, -1, 0,  9}));
}

TEST(BeamReorder, RefusesWhatDoesNotFit) {
  const auto attrs = to_attrs(BeamReorder{.beams = 2});
  const ir::TensorType tables{kI32, {2, "R", "M"}}, beams{kI32, {"G", 8}}, places{kI32, {"G", 4}};
  EXPECT_EQ(infer_types("beam_reorder", {tables, beams, places, places}, attrs)[0], tables);
  EXPECT_EQ(refusal("beam_reorder", {tables, beams, places, {kI32, {"G", 2}}}, attrs),
            "tokens is i32[G, 2]; expected is the shape [G, 4] (beam_reorder)");
  EXPECT_EQ(
      refusal("beam_reorder", {tables, beams, places, places}, to_attrs(BeamReorder{.beams = 1})),
      "beams is 1 (beam_reorder); use 2 to 64");
}

}  // namespace
}  // namespace millrace::ops
