#include "ops/rope_angles/rope_angles.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "ops/common/rope_frequencies.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

constexpr float kUntouched = -12345.0f;

struct Step {
  std::vector<int32_t> positions, context_lengths, query_start, query_length;
};

std::vector<float> run(const RopeAngles& a, Step step, int threads = 2) {
  const Op& op = *find_op("rope_angles");
  const auto rows = static_cast<int64_t>(step.positions.size());
  std::vector<float> result(static_cast<size_t>(rows * a.rotary_dim), kUntouched);
  std::vector<Tensor> in;
  for (auto* values :
       {&step.positions, &step.context_lengths, &step.query_start, &step.query_length}) {
    in.emplace_back(values->data(), ir::DType::kI32,
                    std::vector{static_cast<int64_t>(values->size())});
  }
  const std::vector<Tensor> out = {
      {result.data(), ir::DType::kF32, std::vector<int64_t>{rows, a.rotary_dim}}};
  ThreadPool pool(threads);
  device::Queue queue{.pool = &pool};
  const auto attributes = op.parse_attrs(to_attrs(a));
  op.tactics.back().run({.in = in, .out = out, .attributes = attributes.get(), .queue = &queue});
  return result;
}

TEST(RopeAngles, AreProductsOfFloats) {
  const RopeAngles a{.rotary_dim = 64, .theta = 500000};
  const std::vector<int32_t> positions = {0, 1, 2, 1000, 8191, 131071, 1000003};
  const auto got = run(a, {positions, {7}, {0}, {7}});
  for (size_t t = 0; t < positions.size(); ++t) {
    for (int i = 0; i < 32; ++i) {
      const auto exponent = static_cast<float>(2 * i) / 64.0f;
      const auto inv_freq = 1.0f / static_cast<float>(std::pow(500000.0, double{exponent}));
      const double angle = static_cast<float>(positions[t]) * inv_freq;
      const float* row = got.data() + t * 64;
      EXPECT_EQ(row[i], static_cast<float>(std::cos(angle))) << positions[t] << " " << i;
      EXPECT_EQ(row[32 + i], static_cast<float>(std::sin(angle))) << positions[t] << " " << i;
    }
  }
}

TEST(RopeAngles, LongPromptsHaveTheirOwnFrequencies) {
  const RopeScaling long_rope{.rule = RopeRule::kLongRope,
                              .rotary_dim = 4,
                              .factor = 4,
                              .original_max_position = 16,
                              .short_factor = {1, 2},
                              .long_factor = {3, 5}};
  const RopeAngles a{.rotary_dim = 4,
                     .rule = "longrope",
                     .factor = 4,
                     .original_max_position = 16,
                     .short_factor = {1, 2},
                     .long_factor = {3, 5}};
  const RopeScaling dynamic{
      .rule = RopeRule::kDynamic, .rotary_dim = 4, .factor = 2, .max_position = 16};
  const RopeAngles b{.rotary_dim = 4, .rule = "dynamic", .factor = 2, .max_position = 16};
  const std::vector<int32_t> prompts = {0, 16, 17, 40};
  const Step step{{3, 3, 3, 3}, prompts, {0, 1, 2, 3}, {1, 1, 1, 1}};
  for (const auto& [attributes, scaling] : {std::pair{a, long_rope}, {b, dynamic}}) {
    const auto got = run(attributes, step);
    for (size_t s = 0; s < prompts.size(); ++s) {
      const RopeFrequencies f = rope_frequencies(scaling, std::max(prompts[s], 1));
      for (size_t i = 0; i < 2; ++i) {
        const double angle = 3.0f * f.inv_freq[i];
        EXPECT_EQ(got[s * 4 + i], static_cast<float>(std::cos(angle)) * f.attention_scaling);
        EXPECT_EQ(got[s * 4 + 2 + i], static_cast<float>(std::sin(angle)) * f.attention_scaling);
      }
    }
    EXPECT_NE(got[4 * 1 + 1], got[4 * 2 + 1]) << attributes.rule << ": the limit changes nothing";
  }
}

TEST(RopeAngles, WritesOnlyRowsOfSequences) {
  const RopeAngles a{.rotary_dim = 4};
  const Step step{{7, 0, 1, 7, 5, 7}, {2, 9, 9}, {1, 4, 0}, {2, 1, 0}};
  const auto got = run(a, step);
  for (size_t t = 0; t < 6; ++t) {
    const bool owned = t == 1 || t == 2 || t == 4;
    EXPECT_EQ(got[t * 4] != kUntouched, owned) << "row " << t;
    if (owned) {
      EXPECT_EQ(got[t * 4], static_cast<float>(std::cos(static_cast<double>(step.positions[t]))));
    }
  }
}

TEST(RopeAngles, RefusesWhatItCannotMake) {
  const Op& op = *find_op("rope_angles");
  const std::vector<ir::TensorType> in = {{ir::DType::kI32, {"T"}},
                                          {ir::DType::kI32, {"S"}},
                                          {ir::DType::kI32, {"S"}},
                                          {ir::DType::kI32, {"S"}}};
  EXPECT_EQ(op.infer(in, to_attrs(RopeAngles{.rotary_dim = 8})).at(0),
            (ir::TensorType{ir::DType::kF32, {"T", 8}}));
  for (const RopeAngles& bad :
       {RopeAngles{}, RopeAngles{.rotary_dim = 7}, RopeAngles{.rotary_dim = 8, .rule = "magic"},
        RopeAngles{.rotary_dim = 8, .theta = 0}, RopeAngles{.rotary_dim = 8, .rule = "llama3"},
        RopeAngles{.rotary_dim = 8, .rule = "dynamic", .factor = 2},
        RopeAngles{.rotary_dim = 8, .rule = "longrope", .original_max_position = 4}}) {
    EXPECT_THROW(op.infer(in, to_attrs(bad)), Error) << bad.rule << " " << bad.rotary_dim;
  }
}

}  // namespace
}  // namespace millrace::ops
