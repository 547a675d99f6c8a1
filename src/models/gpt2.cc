// GPT-2: learned positions, LayerNorm, one product for Q, K and V, weights stored [in, out]
// (Conv1D).
#include "models/decoder_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, vocab, positions;
  nn::QkvSizes sizes;
  double norm_eps;
  std::string activation;
  bool tied, scale_by_head_size, scale_by_layer;
  WindowOptions window;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  if (json.get_bool("add_cross_attention", false)) {
    json.fail("add_cross_attention", "is not supported for GPT-2", "use a decoder-only checkpoint");
  }
  const int64_t dim = json.get_int("n_embd");
  const int64_t heads = json.get_int("n_head");
  return {
      .dim = dim,
      .ffn_dim = json.get_int("n_inner", 4 * dim),
      .layers = json.get_int("n_layer"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("n_positions", 1024),
      .sizes = {heads, heads, split_heads(json, "n_embd", dim, "n_head", heads)},
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
      .activation = read_activation(json, "activation_function", "gelu_new"),
      .tied = json.get_bool("tie_word_embeddings", true),
      .scale_by_head_size = json.get_bool("scale_attn_weights", true),
      .scale_by_layer = json.get_bool("scale_attn_by_inverse_layer_idx", false),
      .window = window,
  };
}

class Gpt2 : public Model {
 public:
  explicit Gpt2(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }

  std::vector<KvLayer> kv_layers() const override {
    const std::vector<int> windows(static_cast<size_t>(c_.layers), c_.window.window);
    return kv_layers_of(c_.sizes, windows, c_.window.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    // Checkpoints saved from the bare model lack the prefix.
    const Scope m = root.has("wte.weight") ? root : root["transformer"];
    Value x = nn::embedding(m["wte"], step.input_ids, c_.vocab, c_.dim) +
              nn::embedding(m["wpe"], step.position_ids, c_.positions, c_.dim);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      x = x + attention(s["attn"], nn::layer_norm(s["ln_1"], x, c_.norm_eps), step,
                        static_cast<int>(i));
      x = x + feed_forward(s["mlp"], nn::layer_norm(s["ln_2"], x, c_.norm_eps));
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::StepInputs& step, int layer) const {
    const Value qkv = nn::conv1d(s["c_attn"], x, 3 * c_.dim);  // [T, 3 dim]
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    ops::Attention attrs = attention_of(c_.sizes, c_.window.window, c_.window.sink_tokens);
    if (!c_.scale_by_head_size) attrs.scale = 1;
    if (c_.scale_by_layer) attrs.scale /= layer + 1;
    const Value o = nn::attention(attrs, q, k, v, {.step = step, .layer = layer});
    return nn::conv1d(s["c_proj"], o, c_.dim);
  }

  Value feed_forward(const Scope& s, Value x) const {
    const Value h = nn::activation(nn::conv1d(s["c_fc"], x, c_.ffn_dim), c_.activation);
    return nn::conv1d(s["c_proj"], h, c_.dim);
  }

  Config c_;
};

}  // namespace

Architecture model_gpt2() {
  return {
      .names = {"GPT2LMHeadModel"},
      .ignored_tensors = {R"((transformer\.)?h\.\d+\.attn\.(masked_)?bias)", R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Gpt2>(read_config(config, window));
      }};
}

}  // namespace millrace::models
