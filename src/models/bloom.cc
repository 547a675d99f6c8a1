// BLOOM: ALiBi instead of positions, LayerNorm also behind the embedding, Q, K and V of one product
// whose rows are stored head by head.
#include "models/decoder_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, layers, vocab, positions;
  nn::QkvSizes sizes;
  double norm_eps;
  bool tied, residual_after_norm;
  WindowOptions window;
};

/// Either spelling: checkpoints have both.
int64_t get_either(const HfConfig& json, std::string_view key, std::string_view other) {
  return json.has(other) ? json.get_int(other) : json.get_int(key);
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t dim = get_either(json, "hidden_size", "n_embed");
  const int64_t heads = get_either(json, "num_attention_heads", "n_head");
  return {
      .dim = dim,
      .layers = get_either(json, "num_hidden_layers", "n_layer"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("seq_length", 2048),
      .sizes = {heads, heads, split_heads(json, "hidden_size", dim, "n_head", heads)},
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
      .tied = json.get_bool("tie_word_embeddings", true),
      .residual_after_norm = json.get_bool("apply_residual_connection_post_layernorm", false),
      .window = window,
  };
}

class Bloom : public Model {
 public:
  explicit Bloom(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }

  std::vector<KvLayer> kv_layers() const override {
    const std::vector<int> windows(static_cast<size_t>(c_.layers), c_.window.window);
    return kv_layers_of(c_.sizes, windows, c_.window.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    // Checkpoints saved from the bare model lack the prefix.
    const Scope m = root.has("word_embeddings.weight") ? root : root["transformer"];
    const Value e = nn::embedding(m["word_embeddings"], step.input_ids, c_.vocab, c_.dim);
    Value x = nn::layer_norm(m["word_embeddings_layernorm"], e, c_.norm_eps);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      const Value h = nn::layer_norm(s["input_layernorm"], x, c_.norm_eps);
      x = (c_.residual_after_norm ? h : x) +
          attention(s["self_attention"], h, step, static_cast<int>(i));
      const Value f = nn::layer_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = (c_.residual_after_norm ? f : x) +
          nn::mlp(s["mlp"], f, 4 * c_.dim, "gelu_pytorch_tanh", {"dense_h_to_4h", "dense_4h_to_h"});
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["word_embeddings"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::StepInputs& step, int layer) const {
    const auto [q, k, v] = nn::grouped_qkv(s["query_key_value"], x, c_.sizes, true);
    ops::Attention attrs = attention_of(c_.sizes, c_.window.window, c_.window.sink_tokens);
    attrs.alibi_max_bias = 8;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, {.step = step, .layer = layer});
    return nn::linear(s["dense"], o, c_.dim, true);
  }

  Config c_;
};

}  // namespace

Architecture model_bloom() {
  return {
      .names = {"BloomForCausalLM"},
      .ignored_tensors = {R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Bloom>(read_config(config, window));
      }};
}

}  // namespace millrace::models
