#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/common/sequence_inputs.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

using ir::DType;

constexpr int kHeads = 6, kKvHeads = 2, kSize = 8;

Attention small() {
  return {.heads = kHeads,
          .kv_heads = kKvHeads,
          .head_size = kSize,
          .v_head_size = kSize,
          .scale = 0.5};
}

/// q, k, v, the sequence inputs, the cache; then `more`.
std::vector<ir::TensorType> inputs(std::initializer_list<ir::TensorType> more = {}) {
  std::vector<ir::TensorType> in = {{DType::kF32, {5, kHeads * kSize}},
                                    {DType::kF32, {5, kKvHeads * kSize}},
                                    {DType::kF32, {5, kKvHeads * kSize}}};
  for (int i = 0; i + 1 < kNumSequenceInputs; ++i)
    in.push_back({DType::kI32, {2}});
  in.push_back({DType::kI32, {1, 2, 4}});
  in.push_back({DType::kState, {}});
  in.insert(in.end(), more);
  return in;
}

/// What the shape rule says; empty when it agrees.
std::string complaint(const Attention& a, const std::vector<ir::TensorType>& in) {
  try {
    const auto out = find_op("attention")->infer(in, to_attrs(a));
    EXPECT_EQ(out[0].shape, (ir::Shape{5, kHeads * kSize}));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

void expect_complaint(const char* expected, const Attention& a,
                      const std::vector<ir::TensorType>& in) {
  const std::string got = complaint(a, in);
  EXPECT_NE(got.find(expected), std::string::npos) << got;
}

TEST(AttentionRule, KnowsWhatComesAfterTheCache) {
  const ir::TensorType sinks{DType::kBF16, {kHeads}}, table{DType::kF32, {32, kHeads}};
  Attention a = small();
  EXPECT_EQ(complaint(a, inputs()), "");
  a.sink_logits = true;
  EXPECT_EQ(complaint(a, inputs({sinks})), "");
  a.relative_buckets = 32;
  a.relative_max_distance = 128;
  EXPECT_EQ(complaint(a, inputs({sinks, table})), "");
  a.rotary_dim = 4;
  EXPECT_EQ(complaint(a, inputs({{DType::kF32, {5, 4}}, sinks, table})), "");
  expect_complaint("relative_bias must be f32, bf16 or f16 of shape [32, 6]", a,
                   inputs({{DType::kF32, {5, 4}}, table, sinks}));
  expect_complaint("expected 14 inputs, got 13", a, inputs({sinks, table}));
  a.rotary_dim = 0;
  expect_complaint("sink_logits must be f32, bf16 or f16 of shape [6]", a, inputs({table, table}));
}

TEST(AttentionRule, RefusesNumbersThatMakeNoSense) {
  Attention a = small();
  a.softcap = -1;
  expect_complaint("softcap must not be negative", a, inputs());
  a = small();
  a.alibi_max_bias = -8;
  expect_complaint("alibi_max_bias must not be negative", a, inputs());
  a = small();
  a.alibi_bf16 = true;
  expect_complaint("alibi_bf16 needs alibi_max_bias", a, inputs());
  a = small();
  a.relative_buckets = 32;
  a.relative_max_distance = 16;
  expect_complaint("max_distance must exceed half the buckets", a,
                   inputs({{DType::kF32, {32, kHeads}}}));
}

}  // namespace
}  // namespace millrace::ops
