// Mixtral: Mistral with a feed-forward of experts in every layer.
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
  bool tied;
  int window, sink_tokens;
  nn::GatedExperts experts;
  int experts_per_token;
  ops::RopeAngles rope;
};

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  Config c{
      .dim = json.get_int("hidden_size"),
      .layers = json.get_int("num_hidden_layers"),
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", 4096 * 32),
      .sizes = read_heads(json),
      .norm_eps = json.get_float("rms_norm_eps", 1e-5, kPositive),
      .tied = json.get_bool("tie_word_embeddings", false),
      .window = asked.window,
      .sink_tokens = asked.sink_tokens,
      .experts = {.experts = json.get_int("num_local_experts", 8, {1, ops::kMaxExperts}),
                  .ffn = json.get_int("intermediate_size"),
                  .activation = read_activation(json, "hidden_act", "silu"),
                  .gate = "w1",
                  .up = "w3",
                  .down = "w2"},
      .experts_per_token = 0,
      .rope = {},
  };
  c.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", 2, {1, c.experts.experts}));
  if (json.has("sliding_window")) c.window = static_cast<int>(json.get_int("sliding_window"));
  c.rope = rope_options(json, c.sizes.head_size);
  return c;
}

class Mixtral : public Model {
 public:
  explicit Mixtral(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.max_positions; }

  std::vector<KvLayer> kv_layers() const override {
    const std::vector<int> windows(static_cast<size_t>(c_.layers), c_.window);
    return kv_layers_of(c_.sizes, windows, c_.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    const GqaLayer attention{.sizes = c_.sizes,
                             .rotary_dim = c_.rope.rotary_dim,
                             .window = c_.window,
                             .sink_tokens = c_.sink_tokens};
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + gqa_attention(s["self_attn"], nn::rms_norm(s["input_layernorm"], x, c_.norm_eps),
                            attention,
                            {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + feed_forward(s["block_sparse_moe"],
                           nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps));
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value feed_forward(const Scope& s, Value x) const {
    const Value logits = nn::router_logits(s["gate"], x, c_.experts.experts);
    const nn::Routing routing =
        nn::route({.experts_per_token = c_.experts_per_token, .normalise = true}, logits);
    return nn::gated_experts(s["experts"], x, routing, c_.experts);
  }

  Config c_;
};

}  // namespace

Architecture model_mixtral() {
  return {
      .names = {"MixtralForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Mixtral>(read_config(config, window));
      }};
}

}  // namespace millrace::models
