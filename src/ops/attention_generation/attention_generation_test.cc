#include "ops/attention_generation/attention_generation.h"

#include <gtest/gtest.h>

#include "base/error.h"
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

/// The launches of one step whose keys and values are not in the cache yet.
class AppendStep {
 public:
  AppendStep(const AttentionShape& shape, ir::DType stored) : kv_(spec(shape, stored)) {
    kv_.fill_pool();
    const int64_t columns = int64_t{shape.heads + shape.kv_heads} * shape.head_size +
                            int64_t{shape.kv_heads} * shape.v_head_size;
    qkv_ = numbers(columns);
    angles_ = numbers(kRotaryDim);
    q_.resize(static_cast<size_t>(kv_.rows() * shape.heads * shape.head_size));
    out_.resize(static_cast<size_t>(kv_.rows() * shape.heads * shape.v_head_size));
  }

  /// `op` with the inputs that `in` adds to: the first, the sequence inputs, the cache.
  void run(const char* name, const ir::Attrs& attrs, const std::vector<float*>& first_and_more,
           std::vector<float>& result) {
    const Op& op = *find_op(name);
    const Tactic& tactic = op.tactics.back();
    std::vector<Tensor> in = {rows_of(first_and_more[0])};
    for (const Tensor& tensor : kv_.tensors())
      in.push_back(tensor);
    for (size_t i = 1; i < first_and_more.size(); ++i)
      in.push_back(rows_of(first_and_more[i]));
    const std::vector<Tensor> out = {rows_of(result.data()), in[8]};
    const auto attributes = op.parse_attrs(attrs);
    ThreadPool pool(2);
    device::Queue queue{.pool = &pool};
    Launch launch{.in = in, .out = out, .attributes = attributes.get(), .queue = &queue};
    const int64_t bytes = tactic.workspace == nullptr ? 0 : tactic.workspace(launch, {});
    std::vector<std::byte> workspace(static_cast<size_t>(bytes), std::byte{0xff});
    launch.workspace = workspace.data();
    tactic.run(launch);
  }

  KvCase kv_;
  std::vector<float> qkv_, angles_, q_, out_;
  static constexpr int kRotaryDim = 12;

 private:
  static KvCaseSpec spec(const AttentionShape& shape, ir::DType stored) {
    KvCaseSpec spec{.sequences = {{0, 1, kGeneration},
                                  {15, 1, kGeneration},
                                  {16, 3, kGeneration},
                                  {4, 0, kGeneration},
                                  {300, 2, kGeneration}},
                    .row_gap = 1};
    spec.dtype = stored;
    spec.has_new_tokens = false;
    return with_heads(spec, shape);
  }
  std::vector<float> numbers(int64_t columns) const {
    std::vector<float> values;
    for (int64_t i = 0; i < kv_.rows() * columns; ++i)
      values.push_back(hashed_value(5, static_cast<uint64_t>(columns), static_cast<uint64_t>(i)));
    return values;
  }
  /// [T, columns]: of the vector that `data` is the beginning of.
  Tensor rows_of(float* data) {
    for (const std::vector<float>* values : {&qkv_, &angles_, &q_, &out_}) {
      if (values->data() != data) continue;
      return {data, ir::DType::kF32,
              std::vector<int64_t>{kv_.rows(), static_cast<int64_t>(values->size()) / kv_.rows()}};
    }
    return {};
  }
};

// `append`: what rope_append and attention do one after the other, to the bit.
TEST(AttentionGenerationReference, AppendsAsRopeAppendDoes) {
  const AttentionShape shape{6, 2, 16, 16, 0.25f, 40, 3};
  for (const bool interleaved : {false, true}) {
    for (const ir::DType stored : {ir::DType::kF32, ir::DType::kBF16, ir::DType::kI8}) {
      SCOPED_TRACE(ir::dtype_name(stored));
      ir::Attrs rope;
      for (const char* name : {"heads", "kv_heads", "head_size", "v_head_size"})
        rope.set(name, *attention_attrs(shape).find(name));
      rope.set("rotary_dim", int64_t{AppendStep::kRotaryDim});
      rope.set("interleaved", interleaved);
      rope.set("packed", true);
      AppendStep two(shape, stored), one(shape, stored);
      two.run("rope_append", rope, {two.qkv_.data(), two.angles_.data()}, two.q_);
      two.run("attention_generation", attention_attrs(shape), {two.q_.data(), two.out_.data()},
              two.out_);
      ir::Attrs fused = attention_attrs(shape);
      fused.set("append", true);
      for (const char* name : {"rotary_dim", "interleaved", "packed"})
        fused.set(name, *rope.find(name));
      one.run("attention_generation", fused, {one.qkv_.data(), one.out_.data(), one.angles_.data()},
              one.out_);
      EXPECT_EQ(one.out_, two.out_);
      EXPECT_EQ(one.kv_.pool, two.kv_.pool);
      AppendStep before(shape, stored);
      EXPECT_NE(one.kv_.pool, before.kv_.pool);
    }
  }
}

TEST(AttentionGenerationReference, SaysWhatAppendingNeeds) {
  const Op& op = *find_op("attention_generation");
  const ir::TensorType row{ir::DType::kI32, {"S"}}, q{ir::DType::kF32, {"T", 32}},
      kv{ir::DType::kF32, {"T", 16}}, angles{ir::DType::kF32, {"T", 8}};
  const std::vector<ir::TensorType> apart = {
      q, row, row, row,   row, row, row, {ir::DType::kI32, {1, "S", "M"}}, {ir::DType::kState, {}},
      q, kv,  kv,  angles};
  const auto message = [&](std::vector<ir::TensorType> in, const AttentionGeneration& a) {
    try {
      op.infer(in, to_attrs(a));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  AttentionGeneration a = {
      .heads = 4, .kv_heads = 2, .head_size = 8, .v_head_size = 8, .scale = 0.5};
  a.append = true;
  a.rotary_dim = 8;
  EXPECT_EQ(message(apart, a), "");
  std::vector<ir::TensorType> wrong = apart;
  wrong[10] = q;
  EXPECT_NE(message(wrong, a).find("k must be"), std::string::npos);
  wrong = apart;
  wrong.pop_back();
  EXPECT_NE(message(wrong, a).find("expected 13 inputs, got 12"), std::string::npos);
  a.packed = true;
  EXPECT_NE(message({q, apart.begin()[1]}, a).find("qkv must be"), std::string::npos);
  a.packed = false;
  a.rotary_dim = 7;
  EXPECT_NE(message(apart, a).find("rotary_dim must be even"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Tactics, AttentionGenerationTest,
                         testing::ValuesIn(runnable_tactics("attention_generation")),
                         [](const auto& test) {
                           return std::string(
                               find_op("attention_generation")->tactics[test.param].name);
                         });

}  // namespace
}  // namespace millrace::ops
