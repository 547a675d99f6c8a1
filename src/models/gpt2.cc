// GPT-2: learned positions, LayerNorm, one product for Q, K and V, weights stored [in, out]
// (Conv1D).
#include <cmath>

#include "base/str.h"
#include "models/model.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, heads, vocab, positions;
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
  Config c{
      .dim = dim,
      .ffn_dim = json.get_int("n_inner", 4 * dim),
      .layers = json.get_int("n_layer"),
      .heads = json.get_int("n_head"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int("n_positions", 1024),
      .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
      .activation = json.get_string("activation_function", "gelu_new"),
      .tied = json.get_bool("tie_word_embeddings", true),
      .scale_by_head_size = json.get_bool("scale_attn_weights", true),
      .scale_by_layer = json.get_bool("scale_attn_by_inverse_layer_idx", false),
      .window = window,
  };
  if (c.dim % c.heads != 0) {
    json.fail("n_embd", str("is ", c.dim, ", not a multiple of n_head ", c.heads));
  }
  if (!nn::knows_activation(c.activation)) {
    json.fail("activation_function", str("is '", c.activation, "', which is not supported"),
              "supported are silu, gelu, gelu_new, gelu_pytorch_tanh and relu");
  }
  return c;
}

class Gpt2 : public Model {
 public:
  explicit Gpt2(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }

  std::vector<KvLayer> kv_layers() const override {
    const int size = head_size();
    return std::vector<KvLayer>(static_cast<size_t>(c_.layers),
                                {.kv_heads = static_cast<int>(c_.heads),
                                 .k_size = size,
                                 .v_size = size,
                                 .window = c_.window.window,
                                 .sink_tokens = c_.window.sink_tokens});
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
  int head_size() const { return static_cast<int>(c_.dim / c_.heads); }

  Value attention(const Scope& s, Value x, const nn::StepInputs& step, int layer) const {
    const Value qkv = nn::conv1d(s["c_attn"], x, 3 * c_.dim);  // [T, 3 dim]
    s.enter();
    const Value q = nn::slice_cols(qkv, 0, c_.dim);
    const Value k = nn::slice_cols(qkv, c_.dim, 2 * c_.dim);
    const Value v = nn::slice_cols(qkv, 2 * c_.dim, 3 * c_.dim);
    double scale = c_.scale_by_head_size ? 1 / std::sqrt(static_cast<double>(head_size())) : 1;
    if (c_.scale_by_layer) scale /= layer + 1;
    const Value o = nn::attention({.heads = static_cast<int>(c_.heads),
                                   .kv_heads = static_cast<int>(c_.heads),
                                   .head_size = head_size(),
                                   .v_head_size = head_size(),
                                   .scale = scale,
                                   .window = c_.window.window,
                                   .sink_tokens = c_.window.sink_tokens},
                                  q, k, v, {.step = step, .layer = layer});
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
