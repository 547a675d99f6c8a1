// gpt-oss: experts with biases and a clamped activation in every layer, learned attention sinks,
// a window in every second layer.
#include "base/str.h"
#include "models/gqa_common.h"
#include "models/rope_common.h"
#include "nn/experts.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, layers, vocab, max_positions;
  nn::QkvSizes sizes;
  double norm_eps;
  bool tied, attention_bias;
  std::vector<int> windows;  // of each layer; 0: none
  int sink_tokens;
  nn::ClampedExperts experts;
  int experts_per_token;
  ops::RopeAngles rope;
};

std::vector<int> read_windows(const HfConfig& json, int64_t layers, const WindowOptions& asked) {
  std::vector<std::string> types = json.get_strings("layer_types");
  if (types.empty()) {
    for (int64_t i = 0; i < layers; ++i)
      types.emplace_back(i % 2 == 0 ? "sliding_attention" : "full_attention");
  }
  if (static_cast<int64_t>(types.size()) != layers) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  return windows_by_layer_type(json, types, asked);
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  if (!json.has("rope_parameters") && !json.has("rope_scaling")) {
    json.fail("rope_parameters", "is missing");
  }
  const int64_t layers = json.get_int("num_hidden_layers");
  Config c{
      .dim = json.get_int("hidden_size"),
      .layers = layers,
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", 131072),
      .sizes = read_heads(json, 64),
      .norm_eps = json.get_float("rms_norm_eps", 1e-5, kPositive),
      .tied = json.get_bool("tie_word_embeddings", false),
      .attention_bias = json.get_bool("attention_bias", true),
      .windows = read_windows(json, layers, asked),
      .sink_tokens = asked.sink_tokens,
      .experts = {.experts = json.get_int("num_local_experts", 128, {1, ops::kMaxExperts}),
                  .ffn = json.get_int("intermediate_size"),
                  .alpha = json.get_float("swiglu_alpha", 1.702),
                  .limit = json.get_float("swiglu_limit", 7, kPositive)},
      .experts_per_token = 0,
      .rope = rope_options(json, json.get_int("head_dim", 64)),
  };
  c.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", 4, {1, c.experts.experts}));
  return c;
}

class GptOss : public Model {
 public:
  explicit GptOss(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.max_positions; }

  std::vector<KvLayer> kv_layers() const override {
    return kv_layers_of(c_.sizes, c_.windows, c_.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const GqaLayer attention{.sizes = c_.sizes,
                               .rotary_dim = c_.rope.rotary_dim,
                               .window = c_.windows[static_cast<size_t>(i)],
                               .sink_tokens = c_.sink_tokens,
                               .qkv_bias = c_.attention_bias,
                               .out_bias = c_.attention_bias,
                               .sink_logits = true};
      x = x + gqa_attention(s["self_attn"], nn::rms_norm(s["input_layernorm"], x, c_.norm_eps),
                            attention,
                            {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + feed_forward(s["mlp"], nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps));
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value feed_forward(const Scope& s, Value x) const {
    const Value logits = nn::router_logits(s["router"], x, c_.experts.experts, true);
    // A softmax over the chosen logits.
    const nn::Routing routing =
        nn::route({.experts_per_token = c_.experts_per_token, .normalise = true}, logits);
    return nn::clamped_experts(s["experts"], x, routing, c_.experts);
  }

  Config c_;
};

}  // namespace

Architecture model_gpt_oss() {
  return {
      .names = {"GptOssForCausalLM"},
      .ignored_tensors = {R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<GptOss>(read_config(config, window));
      }};
}

}  // namespace millrace::models
