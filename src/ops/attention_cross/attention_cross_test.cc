#include "ops/attention_cross/attention_cross.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/harness/kv_case.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

constexpr float kUntouched = -12345;
constexpr AttentionCross kAttributes{
    .heads = 4, .kv_heads = 2, .head_size = 6, .v_head_size = 5, .scale = 0.4};

/// Sequences whose encoders gave `encoder_lengths` rows, and which have `lengths` rows in this
/// step.
class CrossCase {
 public:
  CrossCase(std::vector<int32_t> encoder_lengths, std::vector<int32_t> lengths, ir::DType stored)
      : kv(spec(encoder_lengths, stored)), lengths_(std::move(lengths)) {
    for (const int32_t length : lengths_) {
      starts_.push_back(static_cast<int32_t>(rows_ += 1));  // one row that nobody owns
      rows_ += length;
    }
    q_.resize(static_cast<size_t>(rows_ * q_columns()));
    for (size_t i = 0; i < q_.size(); ++i)
      q_[i] = 2 * hashed_value(5, i);
    out_.assign(static_cast<size_t>(rows_ * out_columns()), kUntouched);
  }

  std::vector<float> run(const Tactic& tactic, int threads) {
    const std::vector<Tensor> all = kv.tensors();
    const std::vector<int64_t> sequences = {static_cast<int64_t>(lengths_.size())};
    const std::vector<Tensor> in = {{q_.data(), ir::DType::kF32, std::vector{rows_, q_columns()}},
                                    all[kSequenceLength],
                                    {starts_.data(), ir::DType::kI32, sequences},
                                    {lengths_.data(), ir::DType::kI32, sequences},
                                    all[kBlockOffsets],
                                    all[kNumSequenceInputs]};
    const std::vector<Tensor> out = {
        {out_.data(), ir::DType::kF32, std::vector{rows_, out_columns()}}};
    ThreadPool pool(threads);
    device::Queue queue{.pool = &pool};
    tactic.run({.in = in, .out = out, .attributes = &kAttributes, .queue = &queue});
    return out_;
  }

  /// softmax(scale q K^T) V in float64.
  double exact(int64_t s, int64_t row, int64_t head, int64_t d) const {
    const int64_t kv_head = head / (kAttributes.heads / kAttributes.kv_heads);
    double total = 0, sum = 0;
    for (int64_t j = 0; j < kv.sequence_length[static_cast<size_t>(s)]; ++j) {
      double dot = 0;
      for (int64_t i = 0; i < kAttributes.head_size; ++i) {
        const int64_t at = row * q_columns() + head * kAttributes.head_size + i;
        dot +=
            double{q_[static_cast<size_t>(at)]} * double{kv.value(KvPlane::kK, s, kv_head, j, i)};
      }
      const double p = std::exp(kAttributes.scale * dot);
      total += p;
      sum += p * double{kv.value(KvPlane::kV, s, kv_head, j, d)};
    }
    return sum / total;
  }

  void expect_formula(const std::vector<float>& got, double tolerance) const {
    std::vector<char> owned(static_cast<size_t>(rows_), 0);
    for (size_t s = 0; s < lengths_.size(); ++s) {
      for (int64_t row = starts_[s]; row < starts_[s] + lengths_[s]; ++row) {
        owned[static_cast<size_t>(row)] = 1;
        for (int64_t c = 0; c < out_columns(); ++c) {
          const double want = exact(static_cast<int64_t>(s), row, c / kAttributes.v_head_size,
                                    c % kAttributes.v_head_size);
          EXPECT_NEAR(got[static_cast<size_t>(row * out_columns() + c)], want, tolerance)
              << "row " << row << ", column " << c;
        }
      }
    }
    for (int64_t row = 0; row < rows_; ++row) {
      if (owned[static_cast<size_t>(row)] == 0) {
        EXPECT_EQ(got[static_cast<size_t>(row * out_columns())], kUntouched) << row;
      }
    }
  }

  KvCase kv;

 private:
  static KvCaseSpec spec(const std::vector<int32_t>& encoder_lengths, ir::DType stored) {
    KvCaseSpec spec{.sequences = {},
                    .kv_heads = kAttributes.kv_heads,
                    .k_size = kAttributes.head_size,
                    .v_size = kAttributes.v_head_size,
                    .dtype = stored,
                    .tokens_per_block = 8};
    for (const int32_t length : encoder_lengths)
      spec.sequences.push_back({.past = length, .rows = 0});
    return spec;
  }
  static int64_t q_columns() { return int64_t{kAttributes.heads} * kAttributes.head_size; }
  static int64_t out_columns() { return int64_t{kAttributes.heads} * kAttributes.v_head_size; }

  std::vector<int32_t> lengths_, starts_;
  int64_t rows_ = 0;
  std::vector<float> q_, out_;
};

// Rows at the beginning of a decoder see all keys, as those at its end: the mask is no causal one.
TEST(AttentionCross, IsTheFormulaForPromptsAndGeneratedTokens) {
  for (const ir::DType stored : {ir::DType::kF32, ir::DType::kBF16, ir::DType::kF16}) {
    CrossCase c({70, 1, 64, 9}, {5, 1, 0, 4}, stored);
    c.expect_formula(c.run(find_op("attention_cross")->tactics.back(), 2), 1e-6);
  }
}

TEST(AttentionCross, ReadsWhatCrossAppendStored) {
  CrossCase c({17, 3}, {2, 1}, ir::DType::kF32);
  c.kv.fill_pool();
  std::vector<float> k, v;  // as the encoder's rows, two in front that nobody owns
  for (const KvPlane plane : {KvPlane::kK, KvPlane::kV}) {
    const int64_t size = plane == KvPlane::kK ? kAttributes.head_size : kAttributes.v_head_size;
    std::vector<float>& rows = plane == KvPlane::kK ? k : v;
    rows.assign(static_cast<size_t>(2 * kAttributes.kv_heads * size), NAN);
    for (int64_t s = 0; s < 2; ++s) {
      for (int64_t position = 0; position < c.kv.sequence_length[static_cast<size_t>(s)];
           ++position) {
        for (int64_t head = 0; head < kAttributes.kv_heads; ++head) {
          for (int64_t d = 0; d < size; ++d)
            rows.push_back(c.kv.value(plane, s, head, position, d));
          c.kv.clear(plane, s, head, position);
        }
      }
    }
  }
  std::vector<int32_t> starts = {2, 19};
  const std::vector<Tensor> all = c.kv.tensors();
  const std::vector<Tensor> in = {{k.data(), ir::DType::kF32, std::vector<int64_t>{22, 12}},
                                  {v.data(), ir::DType::kF32, std::vector<int64_t>{22, 10}},
                                  {starts.data(), ir::DType::kI32, std::vector<int64_t>{2}},
                                  all[kSequenceLength],  // the encoder's rows
                                  all[kBlockOffsets],
                                  all[kNumSequenceInputs]};
  ir::Attrs attrs;
  attrs.set("kv_heads", int64_t{kAttributes.kv_heads});
  attrs.set("head_size", int64_t{kAttributes.head_size});
  attrs.set("v_head_size", int64_t{kAttributes.v_head_size});
  const Op& append = *find_op("cross_append");
  const auto attributes = append.parse_attrs(attrs);
  ThreadPool pool(2);
  device::Queue queue{.pool = &pool};
  append.tactics.back().run({.in = in, .out = {}, .attributes = attributes.get(), .queue = &queue});
  c.expect_formula(c.run(find_op("attention_cross")->tactics.back(), 1), 1e-6);
}

TEST(AttentionCross, ChecksItsInputs) {
  const ir::TensorType q{ir::DType::kF32, {"T", 24}}, s{ir::DType::kI32, {"S"}};
  const ir::TensorType table{ir::DType::kI32, {2, "S", "M"}}, cache{ir::DType::kState, {}};
  const ir::Attrs attrs = to_attrs(kAttributes);
  EXPECT_EQ(infer_types("attention_cross", {q, s, s, s, table, cache}, attrs)[0].shape,
            (ir::Shape{"T", 20}));
  EXPECT_NE(
      refusal("attention_cross", {q, q, s, s, table, cache}, attrs).find("encoder_input_lengths"),
      std::string::npos);
  EXPECT_NE(refusal("attention_cross", {q, s, s, s, s, cache}, attrs).find("block_offsets"),
            std::string::npos);
  EXPECT_NE(refusal("attention_cross", {q, s, s, s, table, q}, attrs).find("state"),
            std::string::npos);
  EXPECT_NE(refusal("attention_cross", {q, s, s, s, table}, attrs).find("6 inputs"),
            std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
