// MPT: ALiBi instead of positions, LayerNorm without bias, no biases anywhere, Q, K and V of one
// product that may be clipped.
#include "models/decoder_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, vocab, positions;
  nn::QkvSizes sizes;
  double norm_eps, clip, alibi_max_bias;
  double scale;  // of the logits; 0: 1/sqrt(D)
  bool tied;
  WindowOptions window;
};

/// What MosaicML's own code knows besides and no converted checkpoint uses.
void refuse_others(const HfConfig& json, const HfConfig& attention) {
  const auto refuse = [](const HfConfig& where, const char* key, bool present) {
    if (present) where.fail(key, "is set to what is not supported for MPT");
  };
  refuse(json, "logit_scale", json.has("logit_scale"));
  refuse(json, "no_bias", !json.get_bool("no_bias", true));
  refuse(json, "norm_type",
         !json.get_string("norm_type", "low_precision_layernorm").ends_with("layernorm"));
  refuse(attention, "attn_type",
         attention.get_string("attn_type", "multihead_attention") != "multihead_attention");
  refuse(attention, "alibi", !attention.get_bool("alibi", true));
  refuse(attention, "qk_ln", attention.get_bool("qk_ln", false));
  refuse(attention, "prefix_lm", attention.get_bool("prefix_lm", false));
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t dim = json.get_int("d_model"), heads = json.get_int("n_heads");
  const HfConfig attention =
      json.is_object("attn_config") ? json.object("attn_config") : HfConfig::parse("{}", "");
  refuse_others(json, attention);
  return {
      .dim = dim,
      .ffn_dim = dim * json.get_int("expansion_ratio", 4),
      .layers = json.get_int("n_layers"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("max_seq_len", 2048),
      .sizes = {heads, heads, split_heads(json, "d_model", dim, "n_heads", heads)},
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
      .clip = attention.get_float("clip_qkv", 0, {0, 1e308}),
      .alibi_max_bias = attention.get_float("alibi_bias_max", 8, kPositive),
      .scale = attention.get_float("softmax_scale", 0, {0, 1e308}),
      .tied = json.get_bool("tie_word_embeddings", true),
      .window = window,
  };
}

class Mpt : public Model {
 public:
  explicit Mpt(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }

  std::vector<KvLayer> kv_layers() const override {
    const std::vector<int> windows(static_cast<size_t>(c_.layers), c_.window.window);
    return kv_layers_of(c_.sizes, windows, c_.window.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["transformer"];
    Value x = nn::embedding(m["wte"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["blocks"][i];
      const Value h = nn::layer_norm(s["norm_1"], x, c_.norm_eps, {.bias = false});
      x = x + attention(s["attn"], h, step, static_cast<int>(i));
      const Value f = nn::layer_norm(s["norm_2"], x, c_.norm_eps, {.bias = false});
      x = x + nn::mlp(s["ffn"], f, c_.ffn_dim, "gelu", {"up_proj", "down_proj"}, false);
    }
    x = nn::layer_norm(m["norm_f"], x, c_.norm_eps, {.bias = false});
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::StepInputs& step, int layer) const {
    Value qkv = nn::linear(s["Wqkv"], x, c_.sizes.all());
    if (c_.clip > 0) qkv = nn::clamp(qkv, -c_.clip, c_.clip);
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    ops::Attention attrs = attention_of(c_.sizes, c_.window.window, c_.window.sink_tokens);
    attrs.alibi_max_bias = c_.alibi_max_bias;
    if (c_.scale > 0) attrs.scale = c_.scale;
    const Value o = nn::attention(attrs, q, k, v, {.step = step, .layer = layer});
    return nn::linear(s["out_proj"], o, c_.dim);
  }

  Config c_;
};

}  // namespace

Architecture model_mpt() {
  return {
      .names = {"MptForCausalLM", "MPTForCausalLM"},
      .ignored_tensors = {R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Mpt>(read_config(config, window));
      }};
}

}  // namespace millrace::models
