#include "ops/attention_context/attention_context.h"

#include <gtest/gtest.h>

#include "ops/harness/attention_oracle.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

/// What every tactic of the op must hold to; the reference a little tighter.
class AttentionContextTest : public testing::TestWithParam<size_t> {
 protected:
  const Op& op = *find_op("attention_context");
  const Tactic& tactic = op.tactics[GetParam()];
  bool is_reference() const { return GetParam() + 1 == op.tactics.size(); }
  double tolerance() const { return is_reference() ? 3e-7 : 1.5e-6; }

  std::vector<float> run(AttentionCase& c, const AttentionShape& shape, int threads = 2) {
    return c.run(op, tactic, attention_attrs(shape), threads);
  }
};

const KvCaseSpec kRagged = {.sequences = {{0, 5, kContext},
                                          {0, 70, kContext},
                                          {33, 1, kContext},
                                          {64, 67, kContext},
                                          {0, 0, kContext},
                                          {130, 131, kContext},
                                          {20, 1, kGeneration},
                                          {9, 3, kGeneration}},
                            .row_gap = 2};

TEST_P(AttentionContextTest, IsTheFormula) {
  for (const AttentionShape& shape : attention_test_shapes()) {
    SCOPED_TRACE(str(shape.heads, "/", shape.kv_heads, " heads of ", shape.head_size, "/",
                     shape.v_head_size));
    AttentionCase c(with_heads(kRagged, shape), shape);
    EXPECT_LE(c.error(run(c, shape), kContext), tolerance());
  }
}

TEST_P(AttentionContextTest, KnowsEveryKindOfLogits) {
  for (size_t i = 0; i < attention_logit_shapes().size(); ++i) {
    SCOPED_TRACE(i);
    const AttentionShape& shape = attention_logit_shapes()[i];
    AttentionCase c(with_heads(kRagged, shape), shape);
    EXPECT_LE(c.error(run(c, shape), kContext), tolerance());
  }
}

TEST_P(AttentionContextTest, ReadsEveryCacheType) {
  const AttentionShape shape{6, 2, 40, 24, 0.15f, 0, 0};
  for (const ir::DType dtype :
       {ir::DType::kF32, ir::DType::kBF16, ir::DType::kF16, ir::DType::kI8, ir::DType::kF8E4M3}) {
    SCOPED_TRACE(ir::dtype_name(dtype));
    KvCaseSpec spec = with_heads(kRagged, shape);
    spec.dtype = dtype;
    AttentionCase c(spec, shape);
    EXPECT_LE(c.error(run(c, shape), kContext), tolerance());
  }
}

TEST_P(AttentionContextTest, KnowsWindowsAndSinks) {
  for (const auto& [window, sinks] : {std::pair{1, 0}, {7, 0}, {64, 3}, {33, 20}, {500, 4}}) {
    SCOPED_TRACE(str("window ", window, ", sinks ", sinks));
    const AttentionShape shape{4, 2, 16, 16, 0.25f, window, sinks};
    for (const int block : {8, 0}) {
      KvCaseSpec spec = with_heads(kRagged, shape);
      spec.tokens_per_block = block;
      AttentionCase c(spec, shape);
      EXPECT_LE(c.error(run(c, shape), kContext), tolerance());
    }
  }
}

TEST_P(AttentionContextTest, BitsDoNotDependOnThreadsBlocksOrTheBatch) {
  const AttentionShape shape{6, 2, 24, 24, 0.2f, 100, 3};
  KvCaseSpec spec = with_heads(kRagged, shape);
  AttentionCase c(spec, shape);
  const std::vector<float> result = run(c, shape, 1);
  EXPECT_EQ(result, run(c, shape, 3));
  for (const int block : {1, 4, 128, 0}) {
    spec.tokens_per_block = block;
    AttentionCase other(spec, shape);
    EXPECT_EQ(result, run(other, shape)) << block << " tokens per block";
  }
  for (size_t s = 0; s < spec.sequences.size(); ++s) {
    if (spec.sequences[s].type != kContext) continue;
    KvCaseSpec alone = spec;
    alone.row_gap = 0;
    for (size_t other = 0; other < spec.sequences.size(); ++other) {
      if (other != s) alone.sequences[other] = {0, 0, kContext};
    }
    AttentionCase single(alone, shape);
    EXPECT_EQ(c.rows_of(result, s), single.rows_of(run(single, shape), s)) << "sequence " << s;
  }
}

TEST_P(AttentionContextTest, BitsDoNotDependOnChunks) {
  constexpr int kLength = 203;
  for (const auto& [window, sinks] : {std::pair{0, 0}, {50, 5}}) {
    const AttentionShape shape{6, 2, 24, 24, 0.2f, window, sinks};
    KvCaseSpec spec = with_heads({.sequences = {{0, kLength, kContext}}}, shape);
    AttentionCase c(spec, shape);
    const std::vector<float> whole = run(c, shape);
    for (const int chunk : {1, 3, 64, 100, 202}) {
      std::vector<float> joined;
      for (int past = 0; past < kLength; past += chunk) {
        spec.sequences = {{past, std::min(chunk, kLength - past), kContext}};
        AttentionCase part(spec, shape);
        const std::vector<float> rows = run(part, shape);
        joined.insert(joined.end(), rows.begin(), rows.end());
      }
      EXPECT_EQ(whole, joined) << "in chunks of " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tactics, AttentionContextTest,
                         testing::ValuesIn(runnable_tactics("attention_context")),
                         [](const auto& test) {
                           return std::string(
                               find_op("attention_context")->tactics[test.param].name);
                         });

}  // namespace
}  // namespace millrace::ops
