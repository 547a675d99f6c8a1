#include "ops/mla_attention/mla_attention.h"

#include <cmath>

#include <gtest/gtest.h>

#include "ops/harness/attention_oracle.h"
#include "ops/harness/kv_spec.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

constexpr RequestType kContext = RequestType::kContext, kGeneration = RequestType::kGeneration;

const MlaAttention kShape{
    .heads = 3, .nope_size = 20, .rope_size = 6, .latent_size = 45, .v_size = 17, .scale = 0.3};

const KvCaseSpec kRagged = {.sequences = {{0, 5, kContext},
                                          {0, 70, kContext},
                                          {64, 67, kContext},
                                          {0, 0, kContext},
                                          {33, 1, kContext},
                                          {20, 1, kGeneration},
                                          {129, 3, kGeneration}},
                            .row_gap = 2};

/// One call of the op, and the formula in float64, in the expanded form.
class MlaCase {
 public:
  explicit MlaCase(const KvCaseSpec& spec)
      : kv(of_latents(spec, kShape.latent_size, kShape.rope_size)) {
    for (int64_t i = 0; i < kShape.heads * (kShape.nope_size + kShape.v_size); ++i) {
      for (int64_t c = 0; c < kShape.latent_size; ++c)
        weight_.push_back(0.2F *
                          hashed_value(5, static_cast<uint64_t>(i), static_cast<uint64_t>(c)));
    }
    q_.resize(static_cast<size_t>(kv.rows() * q_columns()), NAN);
    for (int64_t s = 0; s < kv.num_sequences(); ++s) {
      const auto& sequence = spec.sequences[static_cast<size_t>(s)];
      for (int64_t i = 0; i < sequence.rows; ++i) {
        for (int64_t c = 0; c < q_columns(); ++c) {
          q_[static_cast<size_t>(row(s, i) * q_columns() + c)] =
              hashed_value(spec.seed + 77, static_cast<uint64_t>(s),
                           static_cast<uint64_t>(sequence.past + i), static_cast<uint64_t>(c));
        }
      }
    }
  }

  int64_t row(int64_t sequence, int64_t i) const {
    return kv.query_start[static_cast<size_t>(sequence)] + i;
  }

  std::vector<float> run(const Tactic& tactic, int threads = 2) {
    const Op& op = *find_op("mla_attention");
    std::vector<float> result(static_cast<size_t>(kv.rows() * out_columns()), NAN);
    std::vector<Tensor> in = {{q_.data(), ir::DType::kF32, std::vector{kv.rows(), q_columns()}}};
    for (const Tensor& tensor : kv.tensors())
      in.push_back(tensor);
    in.emplace_back(weight_.data(), ir::DType::kF32,
                    std::vector<int64_t>{static_cast<int64_t>(weight_.size()) / kShape.latent_size,
                                         kShape.latent_size});
    MlaAttention shape = kShape;
    shape.beams = kv.spec().beams;
    if (shape.beams > 0) {
      for (const Tensor& tensor : kv.beam_tensors())
        in.push_back(tensor);
    }
    const std::vector<Tensor> out = {
        {result.data(), ir::DType::kF32, std::vector{kv.rows(), out_columns()}}};
    ThreadPool pool(threads);
    device::Queue queue{.pool = &pool};
    const auto attributes = op.parse_attrs(to_attrs(shape));
    Launch launch{.in = in, .out = out, .attributes = attributes.get(), .queue = &queue};
    const int64_t bytes = tactic.workspace == nullptr ? 0 : tactic.workspace(launch, {});
    std::vector<std::byte> workspace(static_cast<size_t>(bytes) + 64, std::byte{0xff});
    launch.workspace = workspace.data() + 64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64;
    tactic.run(launch);
    return result;
  }

  /// Rows of one sequence.
  std::vector<float> rows_of(const std::vector<float>& result, int64_t s) const {
    const auto begin = result.begin() + row(s, 0) * out_columns();
    return {begin, begin + kv.query_length[static_cast<size_t>(s)] * out_columns()};
  }

  /// Element d of the result of one row.
  double formula(int64_t s, int64_t i, int64_t head, int64_t d) const {
    const int64_t position = kv.spec().sequences[static_cast<size_t>(s)].past + i;
    const float* q =
        q_.data() + row(s, i) * q_columns() + head * (kShape.nope_size + kShape.rope_size);
    std::vector<double> logits;
    for (int64_t j = 0; j <= position; ++j) {
      double logit = 0;
      for (int64_t n = 0; n < kShape.nope_size; ++n)
        logit += double{q[n]} * made(s, j, head * per_head() + n);
      for (int64_t r = 0; r < kShape.rope_size; ++r)
        logit += double{q[kShape.nope_size + r]} *
                 kv.value(KvPlane::kK, s, 0, j, kShape.latent_size + r);
      logits.push_back(kShape.scale * logit);
    }
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0, total = 0;
    for (int64_t j = 0; j <= position; ++j) {
      const double p = std::exp(logits[static_cast<size_t>(j)] - largest);
      total += p;
      sum += p * made(s, j, head * per_head() + kShape.nope_size + d);
    }
    return sum / total;
  }

  static int64_t out_columns() { return kShape.heads * kShape.v_size; }

  KvCase kv;

 private:
  static int64_t q_columns() { return kShape.heads * (kShape.nope_size + kShape.rope_size); }
  static int64_t per_head() { return kShape.nope_size + kShape.v_size; }

  /// Row `r` of kv_b times the latent at a position.
  double made(int64_t s, int64_t position, int64_t r) const {
    double sum = 0;
    for (int64_t c = 0; c < kShape.latent_size; ++c)
      sum += double{weight_[static_cast<size_t>(r * kShape.latent_size + c)]} *
             kv.value(KvPlane::kK, s, 0, position, c);
    return sum;
  }

  std::vector<float> q_, weight_;
};

std::vector<size_t> runnable() {
  const Tensor q(nullptr, ir::DType::kF32, std::vector<int64_t>{1, 1});
  Launch launch;
  launch.in = std::span(&q, 1);
  launch.attributes = &kShape;
  const auto device = device::make_cpu_device(1);
  const std::span<const Tactic> tactics = find_op("mla_attention")->tactics;
  std::vector<size_t> numbers;
  for (size_t i = 0; i < tactics.size(); ++i) {
    const auto why_not = tactics[i].why_not;
    if (tactics[i].device != device::Kind::kCpu) continue;
    if (why_not == nullptr || why_not(launch, device->properties()).empty()) numbers.push_back(i);
  }
  return numbers;
}

class MlaAttentionTest : public testing::TestWithParam<size_t> {
 protected:
  const Tactic& tactic = find_op("mla_attention")->tactics[GetParam()];
};

TEST_P(MlaAttentionTest, IsTheFormula) {
  for (const int block : {8, 0}) {
    KvCaseSpec spec = kRagged;
    spec.tokens_per_block = block;
    MlaCase c(spec);
    const std::vector<float> result = c.run(tactic);
    for (int64_t s = 0; s < c.kv.num_sequences(); ++s) {
      const std::vector<float> rows = c.rows_of(result, s);
      for (size_t at = 0; at < rows.size(); at += 7) {
        const auto i = static_cast<int64_t>(at);
        const int64_t in_row = i % MlaCase::out_columns();
        EXPECT_NEAR(rows[at],
                    c.formula(s, i / MlaCase::out_columns(), in_row / kShape.v_size,
                              in_row % kShape.v_size),
                    3e-6)
            << "sequence " << s << ", element " << at;
      }
    }
  }
}

TEST_P(MlaAttentionTest, RowsOfNoSequenceAreLeftAlone) {
  MlaCase c(kRagged);
  const std::vector<float> result = c.run(tactic);
  for (int64_t i = 0; i < 2 * MlaCase::out_columns(); ++i)
    EXPECT_TRUE(std::isnan(result[static_cast<size_t>(i)]));
}

TEST_P(MlaAttentionTest, BitsDoNotDependOnThreadsBlocksOrTheBatch) {
  MlaCase c(kRagged);
  const std::vector<float> one = c.run(tactic, 1), three = c.run(tactic, 3);
  for (size_t s = 0; s < kRagged.sequences.size(); ++s) {
    const auto sequence = static_cast<int64_t>(s);
    const std::vector<float> rows = c.rows_of(one, sequence);
    EXPECT_EQ(rows, c.rows_of(three, sequence));
    KvCaseSpec alone = kRagged;
    alone.tokens_per_block = 128;
    for (size_t other = 0; other < alone.sequences.size(); ++other) {
      if (other != s) alone.sequences[other] = {0, 0, alone.sequences[other].type};
    }
    MlaCase single(alone);
    EXPECT_EQ(rows, single.rows_of(single.run(tactic), sequence)) << "sequence " << s;
  }
}

TEST_P(MlaAttentionTest, BitsDoNotDependOnChunks) {
  constexpr int kLength = 150;
  MlaCase c({.sequences = {{0, kLength, kContext}}});
  const std::vector<float> whole = c.run(tactic);
  for (const int chunk : {1, 3, 64, 100, 149}) {
    std::vector<float> joined;
    for (int past = 0; past < kLength; past += chunk) {
      MlaCase part({.sequences = {{past, std::min(chunk, kLength - past), kContext}}});
      const std::vector<float> rows = part.run(tactic);
      joined.insert(joined.end(), rows.begin(), rows.end());
    }
    EXPECT_EQ(whole, joined) << "in chunks of " << chunk;
  }
}

// Two requests of three beams behind a prompt that has its past in its own blocks.
TEST_P(MlaAttentionTest, BeamsFindTheirPastWhereverItIs) {
  KvCaseSpec spec{.sequences = {{4, 3, kContext}}, .row_gap = 1};
  for (const int past : {21, 21, 21, 70, 70, 70})
    spec.sequences.push_back({past, 1, kGeneration});
  for (const int block : {8, 0}) {
    spec.tokens_per_block = block;
    spec.beams = 0;
    MlaCase alone(spec);
    spec.beams = 3;
    MlaCase beams(spec);
    const std::vector<float> found = beams.run(tactic), wanted = alone.run(tactic);
    for (int64_t s = 0; s < beams.kv.num_sequences(); ++s) {
      const std::vector<float> rows = beams.rows_of(found, s);
      EXPECT_EQ(rows, alone.rows_of(wanted, s)) << "sequence " << s;
      EXPECT_NEAR(rows[0], beams.formula(s, 0, 0, 0), 3e-6);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Tactics, MlaAttentionTest, testing::ValuesIn(runnable()),
                         [](const auto& test) {
                           return std::string(find_op("mla_attention")->tactics[test.param].name);
                         });

TEST(MlaAttention, RefusesWhatDoesNotFit) {
  const auto refuse = [](const MlaAttention& a) {
    return refusal("mla_attention", {}, to_attrs(a));
  };
  MlaAttention a = kShape;
  a.rope_size = 5;
  EXPECT_EQ(refuse(a),
            "3 heads of 20 + 5 and 17 with a latent of 45: sizes must be positive, the rotated one "
            "even");
  a = kShape;
  a.scale = 0;
  EXPECT_EQ(refuse(a), "scale must be a positive number, got 0");
  EXPECT_EQ(refuse(kShape), "expected 10 inputs, got 0");
  a = kShape;
  a.beams = 2;
  EXPECT_EQ(refuse(a), "expected 12 inputs, got 0");
}

}  // namespace
}  // namespace millrace::ops
