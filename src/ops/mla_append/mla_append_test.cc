#include "ops/mla_append/mla_append.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "ops/harness/kv_case.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

constexpr MlaAppend kShape{
    .heads = 2, .nope_size = 3, .rope_size = 4, .latent_size = 5, .norm_eps = 0.01};

/// One row of a sequence that has 6 tokens.
struct Step {
  KvCase kv{{.sequences = {{6, 1, RequestType::kGeneration}},
             .k_size = 9,
             .v_size = 0,
             .tokens_per_block = 4,
             .has_new_tokens = false}};
  std::vector<float> q{1, 2, 3, 0.5F, -1, 2, 0.25F, 4, 5, 6, -2, 1, 0.75F, -0.5F};
  std::vector<float> kv_row{1, -2, 0.5F, 3, 0, 0.5F, 1.5F, -1, 2};
  std::vector<float> angles{0.8F, 0.6F, 0.6F, -0.8F};  // cosines, then sines
  std::vector<float> norm{1, 2, 0.5F, 1, 3};

  std::vector<float> run(bool interleaved) {
    MlaAppend a = kShape;
    a.interleaved = interleaved;
    std::vector<float> out(q.size());
    std::vector<Tensor> in = {{q.data(), ir::DType::kF32, std::vector<int64_t>{1, 14}},
                              {kv_row.data(), ir::DType::kF32, std::vector<int64_t>{1, 9}}};
    for (const Tensor& tensor : kv.tensors())
      in.push_back(tensor);
    in.emplace_back(angles.data(), ir::DType::kF32, std::vector<int64_t>{1, 4});
    in.emplace_back(norm.data(), ir::DType::kF32, std::vector<int64_t>{5});
    const std::vector<Tensor> outputs = {{out.data(), ir::DType::kF32, std::vector<int64_t>{1, 14}},
                                         in[2 + kNumSequenceInputs]};
    const Op& op = *find_op("mla_append");
    const auto attributes = op.parse_attrs(to_attrs(a));
    ThreadPool pool(1);
    device::Queue queue{.pool = &pool};
    op.tactics.back().run(
        {.in = in, .out = outputs, .attributes = attributes.get(), .queue = &queue});
    return out;
  }

  std::vector<float> stored() const {
    std::vector<float> values;
    for (int64_t d = 0; d < 9; ++d)
      values.push_back(kv.stored(KvPlane::kK, 0, 0, 6, d));
    return values;
  }
};

void expect_floats(const std::vector<float>& got, const std::vector<double>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-6) << "element " << i;
}

// Pair (a, b) at cosine c and sine s: (a c - b s, b c + a s), by hand.
TEST(MlaAppend, RotatesPairsSideBySide) {
  Step step;
  expect_floats(step.run(true), {1, 2, 3, 1.0, -0.5, 1.4, -1.45,  //
                                 4, 5, 6, -2.2, -0.4, 0.05, -0.9});
  const double factor = 1 / std::sqrt((1 + 4 + 0.25 + 9) / 5 + 0.01);
  expect_floats(step.stored(), {factor, -4 * factor, 0.25 * factor, 3 * factor, 0,  //
                                -0.5, 1.5, 1.0, 2.0});
}

TEST(MlaAppend, RotatesHalves) {
  Step step;
  expect_floats(step.run(false), {1, 2, 3, -0.8, -0.4, 1.9, 0.95,  //
                                  4, 5, 6, -2.05, 0.2, -0.6, -1.1});
}

TEST(MlaAppend, RefusesWhatDoesNotFit) {
  EXPECT_EQ(refusal("mla_append", {}, to_attrs(kShape)), "expected 12 inputs, got 0");
}

}  // namespace
}  // namespace millrace::ops
