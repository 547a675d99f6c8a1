// What families refuse in config.json, and what they take where it says nothing. That they compute
// what they should is for tests/models.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/str.h"
#include "models/model.h"

namespace millrace::models {
namespace {

/// All keys that the families ask for; the architecture and `more` in front of them.
std::unique_ptr<Model> model(const char* architecture, const std::string& more = "") {
  const HfConfig config = HfConfig::parse(
      str(R"({"architectures": [")", architecture, R"("], "vocab_size": 50, "padded_vocab_size": 50,
              "hidden_size": 64, "n_embd": 64, "num_attention_heads": 4, "n_head": 4,
              "num_key_value_heads": 4, "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2,
              "intermediate_size": 96, "ffn_hidden_size": 96, "ffn_dim": 96, "rotary_dim": 8)",
          more, "}"),
      "config.json");
  return find_architecture(config).create(config, {});
}

void expect_refused(const char* architecture, const std::string& more,
                    const std::vector<std::string>& words) {
  SCOPED_TRACE(str(architecture, more));
  try {
    model(architecture, more);
    ADD_FAILURE() << "was taken";
  } catch (const Error& error) {
    for (const std::string& word : words)
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

constexpr const char* kFamilies[] = {
    "GPTJForCausalLM",       "CodeGenForCausalLM",   "GPTNeoXForCausalLM", "GPTBigCodeForCausalLM",
    "Starcoder2ForCausalLM", "OPTForCausalLM",       "PhiForCausalLM",     "Phi3ForCausalLM",
    "StableLmForCausalLM",   "GlmForCausalLM",       "Glm4ForCausalLM",    "QWenLMHeadModel",
    "InternLMForCausalLM",   "InternLM2ForCausalLM", "ChatGLMModel",       "GemmaForCausalLM",
    "CohereForCausalLM",     "OlmoForCausalLM",      "Olmo2ForCausalLM",   "GraniteForCausalLM",
    "NemotronForCausalLM",   "SmolLM3ForCausalLM"};

TEST(DecoderFamilies, TakeWhatIsComplete) {
  for (const char* name : kFamilies) {
    SCOPED_TRACE(name);
    const auto made = model(name);
    EXPECT_EQ(made->vocab_size(), 50);
    ASSERT_EQ(made->kv_layers().size(), 2u);
    EXPECT_EQ(made->kv_layers()[0].window, 0);
  }
}

TEST(DecoderFamilies, HaveTheDefaultsOfTheirConfigurations) {
  const auto positions = [](const char* name) { return model(name)->max_positions(); };
  EXPECT_EQ(positions("GPTJForCausalLM"), 2048);
  EXPECT_EQ(positions("GPTBigCodeForCausalLM"), 1024);
  EXPECT_EQ(positions("Starcoder2ForCausalLM"), 4096);
  EXPECT_EQ(positions("GlmForCausalLM"), 131072);
  EXPECT_EQ(positions("CohereForCausalLM"), 8192);
  EXPECT_EQ(positions("NemotronForCausalLM"), 4096);
  EXPECT_EQ(positions("SmolLM3ForCausalLM"), 32768);
  EXPECT_EQ(model("GemmaForCausalLM")->kv_layers()[0].k_size, 256);
  EXPECT_EQ(model("GlmForCausalLM")->kv_layers()[0].k_size, 128);
  EXPECT_EQ(model("GPTBigCodeForCausalLM")->kv_layers()[0].kv_heads, 1);
  EXPECT_EQ(
      model("Starcoder2ForCausalLM", R"(, "num_key_value_heads": null)")->kv_layers()[0].kv_heads,
      2);
}

TEST(DecoderFamilies, WindowsAreThoseOfTheFile) {
  for (const char* name : {"Starcoder2ForCausalLM", "Phi3ForCausalLM"}) {
    EXPECT_EQ(model(name, R"(, "sliding_window": 8)")->kv_layers()[1].window, 8);
    EXPECT_EQ(model(name, R"(, "sliding_window": null)")->kv_layers()[1].window, 0);
  }
}

TEST(DecoderFamilies, LayersDifferByPatternOrList) {
  const auto windows = [](const char* name, const std::string& more) {
    std::vector<int> found;
    for (const KvLayer& layer : model(name, more)->kv_layers())
      found.push_back(layer.window);
    return found;
  };
  const std::string slides = R"(, "use_sliding_window": true, "sliding_window": 8)";
  const char* list = R"(, "layer_types": ["full_attention", "sliding_attention"])";
  EXPECT_EQ(windows("Cohere2ForCausalLM", slides), (std::vector{8, 8}));
  EXPECT_EQ(windows("Cohere2ForCausalLM", slides + R"(, "sliding_window_pattern": 2)"),
            (std::vector{8, 0}));
  EXPECT_EQ(windows("Cohere2ForCausalLM", slides + list), (std::vector{0, 8}));
  EXPECT_EQ(windows("Olmo3ForCausalLM", slides), (std::vector{8, 8}));
  EXPECT_EQ(windows("Olmo3ForCausalLM", slides + list), (std::vector{0, 8}));
  EXPECT_EQ(windows("MinistralForCausalLM", slides), (std::vector{8, 8}));
  EXPECT_EQ(windows("MinistralForCausalLM", slides + list), (std::vector{0, 8}));
  EXPECT_EQ(windows("SmolLM3ForCausalLM", slides), (std::vector{0, 0}));
  EXPECT_EQ(windows("SmolLM3ForCausalLM", slides + R"(, "no_rope_layer_interval": 2)"),
            (std::vector{0, 8}));
}

TEST(DecoderFamilies, QwenGoesBeyondTheLengthOfItsTraining) {
  const char* longer = R"(, "max_position_embeddings": 32768, "seq_length": 2048)";
  EXPECT_EQ(model("QWenLMHeadModel", longer)->max_positions(), 32768);
}

TEST(DecoderFamilies, RefuseWhatTheyCannotCompute) {
  expect_refused("GPTJForCausalLM", R"(, "rotary_dim": 18)", {"rotary_dim", "16 elements"});
  expect_refused("GPTJForCausalLM", R"(, "rotary_dim": null)", {"rotary_dim"});
  expect_refused("CodeGenForCausalLM", R"(, "n_head": 2)", {"n_head", "multiple of 4"});
  expect_refused("GPTNeoXForCausalLM", R"(, "rotary_pct": 0.1)", {"rotary dimension of 1"});
  expect_refused("GPTBigCodeForCausalLM", R"(, "add_cross_attention": true)",
                 {"add_cross_attention"});
  expect_refused("OPTForCausalLM", R"(, "num_attention_heads": 5)",
                 {"hidden_size", "multiple of num_attention_heads 5"});
  expect_refused("Phi3ForCausalLM", R"(, "rope_scaling": {"type": "linear", "factor": 2})",
                 {"rope_scaling", "linear"});
  expect_refused("ChatGLMModel", R"(, "quantization_bit": 4)", {"quantization_bit"});
  expect_refused("ChatGLMModel", R"(, "original_rope": false)", {"original_rope"});
  expect_refused("InternLMForCausalLM", R"(, "rotary": {"type": "spiral"})", {"type", "spiral"});
  expect_refused("QWenLMHeadModel", R"(, "intermediate_size": 97)", {"intermediate_size", "even"});
  expect_refused("GemmaForCausalLM", R"(, "use_bidirectional_attention": true)",
                 {"use_bidirectional_attention"});
  expect_refused("GemmaForCausalLM", R"(, "hidden_activation": "relu")", {"hidden_activation"});
  expect_refused("OlmoForCausalLM", R"(, "clip_qkv": -1)", {"clip_qkv"});
  expect_refused("GraniteForCausalLM", R"(, "attention_multiplier": 0)", {"attention_multiplier"});
  expect_refused("SmolLM3ForCausalLM", R"(, "no_rope_layers": [1])",
                 {"no_rope_layers", "1 entries for 2 layers"});
  expect_refused("Cohere2ForCausalLM", R"(, "layer_types": ["full_attention"])",
                 {"layer_types", "1 entries for 2 layers"});
  expect_refused("Cohere2ForCausalLM",
                 R"(, "layer_types": ["full_attention", "chunked_attention"])",
                 {"layer_types", "chunked_attention"});
}

}  // namespace
}  // namespace millrace::models
