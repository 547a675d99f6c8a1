#include "ops/cross_append/cross_append.h"

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

// Where rows go is tested with attention_cross, which reads them; every tactic by the cases.
TEST(CrossAppend, ChecksItsInputs) {
  const ir::TensorType k{ir::DType::kF32, {"T", 12}}, v{ir::DType::kF32, {"T", 10}};
  const ir::TensorType s{ir::DType::kI32, {"S"}}, table{ir::DType::kI32, {2, "S", "M"}};
  const ir::TensorType cache{ir::DType::kState, {}};
  const ir::Attrs attrs = to_attrs(CrossAppend{.kv_heads = 2, .head_size = 6, .v_head_size = 5});
  EXPECT_EQ(infer_types("cross_append", {k, v, s, s, table, cache}, attrs),
            (std::vector<ir::TensorType>{cache}));
  EXPECT_NE(refusal("cross_append", {v, v, s, s, table, cache}, attrs).find("k must be"),
            std::string::npos);
  EXPECT_NE(refusal("cross_append", {k, v, table, s, table, cache}, attrs).find("query_start"),
            std::string::npos);
  EXPECT_NE(refusal("cross_append", {k, v, s, s, table, k}, attrs).find("state"),
            std::string::npos);
  EXPECT_NE(refusal("cross_append", {k, v, s, s, table}, attrs).find("6 inputs"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
