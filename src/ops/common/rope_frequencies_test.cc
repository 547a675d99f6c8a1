#include "ops/common/rope_frequencies.h"

#include <bit>
#include <cmath>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace millrace::ops {
namespace {

using Json = nlohmann::json;

double number(const Json& parameters, const char* key, double otherwise) {
  return parameters.contains(key) && !parameters[key].is_null() ? parameters[key].get<double>()
                                                                : otherwise;
}

RopeScaling scaling_of(const Json& row) {
  const Json& p = row["parameters"];
  RopeScaling s;
  s.rule = parse_rope_rule(p["rope_type"].get<std::string>()).value();
  s.rotary_dim = row["rotary_dim"].get<int64_t>();
  s.max_position = row["max_position"].get<double>();
  s.theta = p["rope_theta"].get<double>();
  s.original_max_position = number(p, "original_max_position_embeddings", 0);
  s.factor = number(p, "factor", s.max_position / s.original_max_position);
  s.attention_factor = number(p, "attention_factor", 0);
  s.low_freq_factor = number(p, "low_freq_factor", 1);
  s.high_freq_factor = number(p, "high_freq_factor", 4);
  s.beta_fast = number(p, "beta_fast", 32);
  s.beta_slow = number(p, "beta_slow", 1);
  s.mscale = number(p, "mscale", 0);
  s.mscale_all_dim = number(p, "mscale_all_dim", 0);
  s.truncate = p.value("truncate", true);
  s.short_factor = p.value("short_factor", std::vector<double>{});
  s.long_factor = p.value("long_factor", std::vector<double>{});
  return s;
}

Json goldens() {
  return parse_json_file(MILLRACE_SOURCE_DIR "/tests/data/rope/rope_goldens.json");
}

// Recorded from transformers (tests/data/rope/make_rope_goldens.py). Its fp32 power is off by one
// unit in the last place now and then, ours is rounded correctly; nothing else may differ.
TEST(RopeFrequencies, AreThoseOfTransformers) {
  std::set<std::string> rules;
  int exact = 0, total = 0;
  for (const Json& row : goldens()) {
    SCOPED_TRACE(json_line(row["parameters"]) + " length " + json_line(row["prompt_length"]));
    const RopeFrequencies got =
        rope_frequencies(scaling_of(row), row["prompt_length"].get<int64_t>());
    const auto want = row["inv_freq_bits"].get<std::vector<uint32_t>>();
    ASSERT_EQ(got.inv_freq.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) {
      const auto expected = std::bit_cast<float>(want[i]);
      EXPECT_NEAR(got.inv_freq[i] / expected, 1, 3e-7) << "frequency " << i;
      exact += got.inv_freq[i] == expected ? 1 : 0;
      ++total;
    }
    EXPECT_EQ(got.attention_scaling, static_cast<float>(row["attention_scaling"].get<double>()));
    rules.insert(row["parameters"]["rope_type"].get<std::string>());
  }
  EXPECT_EQ(rules.size(), 6u);
  EXPECT_GT(exact, total * 9 / 10) << exact << " of " << total;
}

// Python: 1 / (10000 * alpha ** (8 / 6)) ** (2 * i / 8) with alpha 1 up to 20 tokens, 3 up to 40, 7
// up to 80.
TEST(RopeFrequencies, NtkStepsAreThoseOfTheFormula) {
  const RopeScaling s{.rule = RopeRule::kNtkSteps, .rotary_dim = 8, .max_position = 20};
  const std::vector<std::pair<int64_t, std::vector<double>>> wanted = {
      {20, {1.0, 0.1, 0.01, 0.001}},
      {21, {1.0, 0.06933612743506347, 0.004807498567691361, 0.0003333333333333334}},
      {40, {1.0, 0.06933612743506347, 0.004807498567691361, 0.0003333333333333334}},
      {60, {1.0, 0.052275795857471025, 0.0027327588325319844, 0.00014285714285714287}}};
  for (const auto& [prompt, frequencies] : wanted) {
    const RopeFrequencies got = rope_frequencies(s, prompt);
    ASSERT_EQ(got.inv_freq.size(), frequencies.size());
    for (size_t i = 0; i < frequencies.size(); ++i)
      EXPECT_NEAR(double{got.inv_freq[i]} / frequencies[i], 1, 3e-7) << prompt << ", " << i;
  }
}

TEST(RopeFrequencies, VariantsSeparateWhatDiffers) {
  RopeScaling s{.rule = RopeRule::kDynamic, .rotary_dim = 16, .factor = 2, .max_position = 20};
  EXPECT_EQ(rope_variant(s, 1), rope_variant(s, 20));
  EXPECT_NE(rope_variant(s, 20), rope_variant(s, 21));
  EXPECT_NE(rope_variant(s, 21), rope_variant(s, 22));
  s.rule = RopeRule::kLongRope;
  s.original_max_position = 20;
  EXPECT_EQ(rope_variant(s, 1), rope_variant(s, 20));
  EXPECT_NE(rope_variant(s, 20), rope_variant(s, 21));
  EXPECT_EQ(rope_variant(s, 21), rope_variant(s, 22));
  s.rule = RopeRule::kNtkSteps;
  EXPECT_EQ(rope_variant(s, 1), rope_variant(s, 20));
  EXPECT_NE(rope_variant(s, 20), rope_variant(s, 21));
  EXPECT_EQ(rope_variant(s, 21), rope_variant(s, 40));
  EXPECT_NE(rope_variant(s, 40), rope_variant(s, 41));
  s.rule = RopeRule::kYarn;
  EXPECT_EQ(rope_variant(s, 1), rope_variant(s, 1000));
}

TEST(RopeFrequencies, RulesHaveNames) {
  for (const char* name :
       {"default", "linear", "dynamic", "llama3", "yarn", "longrope", "ntk_steps"}) {
    ASSERT_TRUE(parse_rope_rule(name).has_value()) << name;
    EXPECT_STREQ(rope_rule_name(*parse_rope_rule(name)), name);
  }
  EXPECT_FALSE(parse_rope_rule("mrope").has_value());
}

}  // namespace
}  // namespace millrace::ops
