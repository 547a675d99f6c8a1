#include "ops/attention_generation/attention_generation.h"

#include <gtest/gtest.h>

#include "ops/harness/attention_oracle.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

class AttentionGenerationTest : public testing::TestWithParam<size_t> {
 protected:
  const Op& op = *find_op("attention_generation");
  const Tactic& tactic = op.tactics[GetParam()];
  bool is_reference() const { return GetParam() + 1 == op.tactics.size(); }
  double tolerance() const { return is_reference() ? 3e-7 : 1.5e-6; }

  std::vector<float> run(AttentionCase& c, const AttentionShape& shape, int threads = 2,
                         int splits = 0) {
    auto attributes = attention_attrs(shape);
    attributes.set("splits", int64_t{splits});
    return c.run(op, tactic, attributes, threads);
  }
};

const KvCaseSpec kRagged = {.sequences = {{0, 5, kContext},
                                          {70, 2, kContext},
                                          {0, 1, kGeneration},
                                          {700, 1, kGeneration},
                                          {255, 1, kGeneration},
                                          {256, 1, kGeneration},
                                          {31, 4, kGeneration},
                                          {5, 0, kGeneration},
                                          {254, 9, kGeneration},
                                          {130, 1, kGeneration}},
                            .row_gap = 3};

TEST_P(AttentionGenerationTest, IsTheFormula) {
  for (const AttentionShape& shape : attention_test_shapes()) {
    SCOPED_TRACE(str(shape.heads, "/", shape.kv_heads, " heads of ", shape.head_size, "/",
                     shape.v_head_size));
    AttentionCase c(with_heads(kRagged, shape), shape);
    EXPECT_LE(c.error(run(c, shape), kGeneration), tolerance());
  }
}

TEST_P(AttentionGenerationTest, KnowsEveryKindOfLogits) {
  for (size_t i = 0; i < attention_logit_shapes().size(); ++i) {
    SCOPED_TRACE(i);
    const AttentionShape& shape = attention_logit_shapes()[i];
    AttentionCase c(with_heads(kRagged, shape), shape);
    EXPECT_LE(c.error(run(c, shape), kGeneration), tolerance());
  }
}

TEST_P(AttentionGenerationTest, ReadsEveryCacheType) {
  const AttentionShape shape{6, 2, 40, 24, 0.15f, 0, 0};
  for (const ir::DType dtype :
       {ir::DType::kF32, ir::DType::kBF16, ir::DType::kF16, ir::DType::kI8, ir::DType::kF8E4M3}) {
    SCOPED_TRACE(ir::dtype_name(dtype));
    KvCaseSpec spec = with_heads(kRagged, shape);
    spec.dtype = dtype;
    AttentionCase c(spec, shape);
    EXPECT_LE(c.error(run(c, shape), kGeneration), tolerance());
  }
}

TEST_P(AttentionGenerationTest, KnowsWindowsAndSinks) {
  for (const auto& [window, sinks] : {std::pair{1, 0}, {7, 0}, {64, 3}, {300, 20}, {900, 4}}) {
    SCOPED_TRACE(str("window ", window, ", sinks ", sinks));
    const AttentionShape shape{4, 2, 16, 16, 0.25f, window, sinks};
    for (const int block : {8, 0}) {
      KvCaseSpec spec = with_heads(kRagged, shape);
      spec.tokens_per_block = block;
      AttentionCase c(spec, shape);
      EXPECT_LE(c.error(run(c, shape), kGeneration), tolerance());
    }
  }
}

TEST_P(AttentionGenerationTest, AnyNumberOfSplitsWillDo) {
  const AttentionShape shape{6, 2, 24, 24, 0.2f, 0, 0};
  AttentionCase c(with_heads(kRagged, shape), shape);
  for (int splits = 1; splits <= kMaxSplits; ++splits) {
    EXPECT_LE(c.error(run(c, shape, 2, splits), kGeneration), tolerance()) << splits << " splits";
  }
}

TEST_P(AttentionGenerationTest, FollowsBeams) {
  KvCaseSpec beams{.sequences = {{2, 3, kContext}}, .row_gap = 1};
  for (const int past : {40, 40, 40, 300, 300, 300})
    beams.sequences.push_back({past, 1, kGeneration});
  for (const auto& [window, sinks, dtype] :
       {std::tuple{0, 0, ir::DType::kF32}, {33, 2, ir::DType::kF32}, {33, 2, ir::DType::kI8}}) {
    beams.dtype = dtype;
    for (const int block : {1, 8, 64, 0}) {
      SCOPED_TRACE(str(ir::dtype_name(dtype), ", window ", window, ", ", block, " tokens a block"));
      const AttentionShape shape{.heads = 4,
                                 .kv_heads = 2,
                                 .head_size = 24,
                                 .v_head_size = 16,
                                 .scale = 0.25f,
                                 .window = window,
                                 .sink_tokens = sinks,
                                 .beams = 3};
      beams.tokens_per_block = block;
      AttentionCase c(with_heads(beams, shape), shape);
      EXPECT_LE(c.error(run(c, shape), kGeneration), tolerance());
      AttentionShape alone = shape;  // without the beam inputs, others' pasts are read
      alone.beams = 0;
      EXPECT_FALSE(c.error(run(c, alone), kGeneration) <= tolerance());
    }
  }
}

TEST_P(AttentionGenerationTest, BitsDoNotDependOnThreadsBlocksOrTheBatch) {
  const AttentionShape shape{6, 2, 24, 24, 0.2f, 600, 3};
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
    if (spec.sequences[s].type != kGeneration) continue;
    KvCaseSpec alone = spec;
    alone.row_gap = 0;
    for (size_t other = 0; other < spec.sequences.size(); ++other) {
      if (other != s) alone.sequences[other] = {0, 0, kGeneration};
    }
    AttentionCase single(alone, shape);
    EXPECT_EQ(c.rows_of(result, s), single.rows_of(run(single, shape), s)) << "sequence " << s;
  }
}

TEST(AttentionGenerationReference, HasTheBitsOfTheContextPhase) {
  const Op& context = *find_op("attention_context");
  const Op& generation = *find_op("attention_generation");
  const AttentionShape shape{6, 2, 24, 24, 0.2f, 90, 4};
  KvCaseSpec spec = with_heads({.sequences = {{200, 5, kContext}}}, shape);
  AttentionCase in_context(spec, shape);
  const auto expected = in_context.run(context, context.tactics.back(), attention_attrs(shape), 2);
  spec.sequences[0].type = kGeneration;
  AttentionCase in_generation(spec, shape);
  EXPECT_EQ(expected,
            in_generation.run(generation, generation.tactics.back(), attention_attrs(shape), 2));
}

INSTANTIATE_TEST_SUITE_P(Tactics, AttentionGenerationTest,
                         testing::ValuesIn(runnable_tactics("attention_generation")),
                         [](const auto& test) {
                           return std::string(
                               find_op("attention_generation")->tactics[test.param].name);
                         });

}  // namespace
}  // namespace millrace::ops
