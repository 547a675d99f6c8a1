// gpt-oss: experts with biases and a clamped activation in every layer, learned attention sinks,
// a window in every second layer.
#include "models/pre_norm_common.h"
#include "nn/experts.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  nn::ClampedExperts experts;
  int experts_per_token;
};

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  if (!json.has("rope_parameters") && !json.has("rope_scaling")) {
    json.fail("rope_parameters", "is missing");
  }
  Config c{read_decoder(json, asked,
                        {.max_positions = 131072, .head_size = 64, .rope = {.theta = 150000}}),
           {.experts = json.get_int("num_local_experts", 128, {1, ops::kMaxExperts}),
            .ffn = json.get_int("intermediate_size"),
            .alpha = json.get_float("swiglu_alpha", 1.702),
            .limit = json.get_float("swiglu_limit", 7, kPositive)},
           0};
  c.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", 4, {1, c.experts.experts}));
  c.biases.qkv = c.biases.out = json.get_bool("attention_bias", true);
  const std::vector<std::string> types = read_layer_types(json, c.layers, [](int64_t layer) {
    return layer % 2 == 0 ? "sliding_attention" : "full_attention";
  });
  c.windows = windows_by_layer_type(json, types, asked);
  return c;
}

class GptOss : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.sink_logits = true;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }

  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    const Value logits = nn::router_logits(s["router"], x, c_.experts.experts, true);
    // A softmax over the chosen logits.
    const nn::Routing routing =
        nn::route({.experts_per_token = c_.experts_per_token, .normalise = true}, logits);
    return nn::clamped_experts(s["experts"], x, routing, c_.experts);
  }
};

}  // namespace

Architecture model_gpt_oss() {
  return {.names = {"GptOssForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<GptOss, read_config>};
}

}  // namespace millrace::models
