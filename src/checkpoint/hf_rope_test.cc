#include <cmath>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/test_folder.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

RopeConfig read(const std::string& text, int64_t head_dim = 8) {
  return read_rope_config(HfConfig::parse(text, "config.json"), head_dim);
}

std::string error_of(const std::string& text, int64_t head_dim = 8) {
  return bad_input_of([&] { read(text, head_dim); });
}

double number(const Json& parameters, const char* key, double otherwise) {
  return parameters.contains(key) ? parameters[key].get<double>() : otherwise;
}

// What transformers makes of the same files (tests/data/rope/make_rope_configs.py).
TEST(RopeConfig, EverySpellingIsReadAsInTransformers) {
  int rows = 0;
  for (const Json& row :
       parse_json_file(MILLRACE_SOURCE_DIR "/tests/data/rope/rope_configs.json")) {
    SCOPED_TRACE(json_line(row["config"]));
    const Json& want = row["parameters"];
    const auto head_dim = row["config"]["head_dim"].get<int64_t>();
    const RopeConfig got =
        read_rope_config(HfConfig::parse(json_line(row["config"]), "config.json"), head_dim, {},
                         row["layer_type"].get<std::string>());
    EXPECT_EQ(got.rule, want["rope_type"].get<std::string>());
    EXPECT_EQ(got.theta, want["rope_theta"].get<double>());
    EXPECT_EQ(got.factor, number(want, "factor", 1));
    EXPECT_EQ(got.rotary_dim, static_cast<int64_t>(static_cast<double>(head_dim) *
                                                   number(want, "partial_rotary_factor", 1)));
    EXPECT_EQ(got.max_position, 256);
    EXPECT_EQ(got.original_max_position, number(want, "original_max_position_embeddings", 0));
    EXPECT_EQ(got.attention_factor, number(want, "attention_factor", 0));
    EXPECT_EQ(got.low_freq_factor, number(want, "low_freq_factor", 1));
    EXPECT_EQ(got.high_freq_factor, number(want, "high_freq_factor", 4));
    EXPECT_EQ(got.beta_fast, number(want, "beta_fast", 32));
    EXPECT_EQ(got.beta_slow, number(want, "beta_slow", 1));
    EXPECT_EQ(got.mscale, number(want, "mscale", 0));
    EXPECT_EQ(got.mscale_all_dim, number(want, "mscale_all_dim", 0));
    EXPECT_EQ(got.truncate, want.value("truncate", true));
    EXPECT_EQ(got.short_factor, want.value("short_factor", std::vector<double>{}));
    EXPECT_EQ(got.long_factor, want.value("long_factor", std::vector<double>{}));
    ++rows;
  }
  EXPECT_EQ(rows, 20);
}

TEST(RopeConfig, TheFactorFollowsFromTheContextWhereItIsAbsent) {
  const RopeConfig yarn =
      read(R"({"max_position_embeddings":4096,"rope_scaling":{"rope_type":"yarn","factor":null,)"
           R"("original_max_position_embeddings":1024}})");
  EXPECT_EQ(yarn.factor, 4);
  // As Phi-3 files have it: the old name, and the original length outside.
  const RopeConfig phi = read(
      R"({"max_position_embeddings":4096,"original_max_position_embeddings":512,"rope_scaling":)"
      R"({"type":"su","short_factor":[1,1,1,1],"long_factor":[1,2,3,4]}})");
  EXPECT_EQ(phi.rule, "longrope");
  EXPECT_EQ(phi.factor, 8);
  EXPECT_EQ(phi.original_max_position, 512);
}

// As GPTNeoXConfig of transformers: its own words outside of rope_parameters, the usual ones
// inside.
TEST(RopeConfig, FamiliesHaveKeysAndDefaultsOfTheirOwn) {
  const RopeDefaults neox{
      .theta = 5000, .partial = 0.25, .theta_key = "rotary_emb_base", .partial_key = "rotary_pct"};
  const auto read_neox = [&](const char* text) {
    return read_rope_config(HfConfig::parse(text, "config.json"), 16, neox);
  };
  EXPECT_EQ(read_neox("{}").rotary_dim, 4);
  EXPECT_EQ(read_neox("{}").theta, 5000);
  const RopeConfig outside = read_neox(
      R"({"rotary_pct":0.5,"rotary_emb_base":20,"partial_rotary_factor":1,"rope_theta":30})");
  EXPECT_EQ(outside.rotary_dim, 8);
  EXPECT_EQ(outside.theta, 20);
  const RopeConfig inside = read_neox(
      R"({"rotary_pct":0.5,"rope_parameters":{"partial_rotary_factor":1,"rope_theta":30}})");
  EXPECT_EQ(inside.rotary_dim, 16);
  EXPECT_EQ(inside.theta, 30);
}

TEST(RopeConfig, AllKeysOfTheRuleCountAsRead) {
  const HfConfig config =
      HfConfig::parse(R"({"rope_theta":10,"max_position_embeddings":64,"rope_scaling":)"
                      R"({"rope_type":"yarn","type":"yarn","factor":2,"color":1,)"
                      R"("beta_fast":3},"rope_parameters":{"rope_type":"yarn"}})",
                      "config.json");
  read_rope_config(config, 8);
  EXPECT_EQ(config.unread_keys(), std::vector<std::string>{"rope_scaling.color"});
}

TEST(RopeConfig, BadParametersAreRefusedWithTheirKey) {
  EXPECT_EQ(error_of(R"({"rope_scaling":{"rope_type":"spiral"}})"),
            "rope_scaling.rope_type is \"spiral\", which is not supported (config.json); known are "
            "default, linear, dynamic, llama3, yarn and longrope");
  EXPECT_EQ(error_of(R"({"rope_scaling":"linear"})"),
            "rope_scaling is \"linear\" instead of an object (config.json)");
  EXPECT_EQ(error_of(R"({"rope_scaling":{"type":"linear"}})"),
            "rope_scaling.factor is missing (config.json)");
  EXPECT_EQ(error_of(R"({"rope_scaling":{"type":"linear","factor":0}})"),
            "rope_scaling.factor is 0 instead of a number above 0 (config.json)");
  EXPECT_EQ(error_of(R"({"rope_theta":-1})"),
            "rope_theta is -1 instead of a number above 0 (config.json)");
  EXPECT_EQ(error_of(R"({"rope_scaling":{"type":"dynamic","factor":2}})"),
            "max_position_embeddings is missing (config.json)");
  EXPECT_EQ(error_of(R"({"rope_scaling":{"type":"yarn","factor":2}})"),
            "rope_scaling.original_max_position_embeddings is missing (config.json)");
  EXPECT_EQ(error_of(R"({"max_position_embeddings":8,"rope_parameters":{"rope_type":"llama3",)"
                     R"("factor":2,"low_freq_factor":4,"high_freq_factor":4}})"),
            "rope_parameters.high_freq_factor is not larger than low_freq_factor (config.json)");
  EXPECT_EQ(error_of(R"({"max_position_embeddings":8,"rope_scaling":{"type":"longrope","factor":2,)"
                     R"("short_factor":[1,1,1,1],"long_factor":[1,1]}})"),
            "rope_scaling.long_factor has 2 numbers instead of 4, half the rotary dimension "
            "(config.json)");
  EXPECT_EQ(error_of(R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})"),
            "rope_parameters differs by layer type, which this architecture does not know "
            "(config.json)");
  EXPECT_EQ(error_of("{}", 7),
            "head_dim of 7 gives a rotary dimension of 7; it must be even and at least 2 "
            "(config.json)");
}

}  // namespace
}  // namespace millrace
