// What the families with experts refuse.
#include <string>

#include <gtest/gtest.h>

#include "millrace/error.h"
#include "models/model.h"

namespace millrace::models {
namespace {

/// The message of the Error with which the family refuses this config.json; empty when it takes it.
std::string refusal(const std::string& json, const WindowOptions& window = {}) {
  const HfConfig config = HfConfig::parse(json, "config.json");
  try {
    find_architecture(config).create(config, window);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
}

std::string deepseek(const std::string& version, const std::string& more) {
  return R"({"architectures": ["Deepseek)" + version +
         R"(ForCausalLM"], "vocab_size": 100, "hidden_size": 32, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "num_experts_per_tok": 2, "n_routed_experts": 8, "q_lora_rank": null)" +
         more + "}";
}

TEST(ExpertFamilies, DeepSeekRefusesWhatWouldChangeTheArithmetic) {
  const std::string one_group = R"(, "n_group": 1, "topk_group": 1)";
  EXPECT_EQ(refusal(deepseek("V2", "")), "");
  EXPECT_EQ(refusal(deepseek("V3", one_group)), "");
  EXPECT_EQ(refusal(deepseek("V2", R"(, "norm_topk_prob": true)")),
            "norm_topk_prob is true, which is not supported for DeepSeek V2 (config.json)");
  EXPECT_EQ(refusal(deepseek("V2", R"(, "topk_method": "noaux_tc")")),
            "topk_method is 'noaux_tc', which is not supported (config.json); supported are greedy "
            "and group_limited_greedy");
  EXPECT_EQ(refusal(deepseek("V2", R"(, "moe_layer_freq": 2)")),
            "moe_layer_freq is not 1, which is not supported (config.json)");
  EXPECT_EQ(
      refusal(deepseek("V3", one_group + R"(, "scoring_func": "softmax")")),
      "scoring_func is 'softmax', which is not supported (config.json); supported is sigmoid");
  EXPECT_EQ(refusal(deepseek("V3", R"(, "n_group": 3, "topk_group": 1)")),
            "n_group is 3, which does not divide n_routed_experts 8 (config.json)");
  EXPECT_EQ(refusal(deepseek("V3", R"(, "n_group": 8, "topk_group": 1)")),
            "topk_group leaves fewer experts than num_experts_per_tok (config.json)");
  EXPECT_EQ(refusal(deepseek("V2", ""), {.window = 16}),
            "an attention window is not supported by latent attention (DeepseekV2ForCausalLM); "
            "leave --attention-window out");
}

TEST(ExpertFamilies, ExpertsOfATokenAreAtMostTheExperts) {
  const std::string mixtral = R"({"architectures": ["MixtralForCausalLM"], "vocab_size": 100,
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_local_experts": 4, "num_experts_per_tok": )";
  EXPECT_EQ(refusal(mixtral + "4}"), "");
  EXPECT_NE(refusal(mixtral + "5}"), "");
}

TEST(ExpertFamilies, GptOssNeedsAWordOnRope) {
  EXPECT_EQ(refusal(R"({"architectures": ["GptOssForCausalLM"]})"),
            "rope_parameters is missing (config.json)");
}

}  // namespace
}  // namespace millrace::models
