// Llama 1 to 3, Mistral, Ministral, Qwen 2 and Qwen 3: pre-norm decoder, grouped-query attention
// with rotary positions, gated feed-forward. Qwen 2 has biases on Q, K and V only; Qwen 3
// normalises each head of Q and K; Mistral and Qwen may look back through a sliding window.
#include "base/str.h"
#include "models/decoder_common.h"
#include "models/rope_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, vocab, max_positions;
  nn::QkvSizes sizes;
  double norm_eps;
  std::string activation;
  bool tied, qkv_bias, out_bias, mlp_bias, head_norm;
  std::vector<int> windows;  // of each layer; 0: none
  int sink_tokens;
  ops::RopeAngles rope;
};

// Windows as transformers assigns them: `layer_types` where it is given; else Mistral's and
// Ministral's window holds for every layer and Qwen's, when switched on, from layer
// max_window_layers on.
std::vector<int> read_windows(const HfConfig& json, int64_t layers, const WindowOptions& asked) {
  std::vector<int> windows(static_cast<size_t>(layers), asked.window);
  const bool qwen = json.architecture().starts_with("Qwen");
  const bool mistral =
      json.architecture() == "MistralForCausalLM" || json.architecture() == "MinistralForCausalLM";
  const bool on = qwen ? json.get_bool("use_sliding_window", false) : mistral;
  if (!on || json.is_null("sliding_window")) return windows;
  const auto window = static_cast<int>(json.get_int("sliding_window", 4096));
  const std::vector<std::string> types = json.get_strings("layer_types");
  if (!types.empty() && types.size() != windows.size()) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  const int64_t first = qwen ? json.get_int("max_window_layers", 28, {0, 1 << 30}) : 0;
  for (int64_t i = 0; i < layers; ++i) {
    const auto layer = static_cast<size_t>(i);
    const bool slides = types.empty() ? i >= first : types[layer] == "sliding_attention";
    if (slides) windows[layer] = window;
  }
  return windows;
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const std::string name = json.architecture();
  const bool qwen2 = name == "Qwen2ForCausalLM", qwen3 = name == "Qwen3ForCausalLM";
  const int64_t layers = json.get_int("num_hidden_layers");
  Config c{
      .dim = json.get_int("hidden_size"),
      .ffn_dim = json.get_int("intermediate_size"),
      .layers = layers,
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", 2048),
      .sizes = read_heads(json, qwen3 ? 128 : 0),
      .norm_eps = json.get_float("rms_norm_eps", 1e-6, kPositive),
      .activation = read_activation(json, "hidden_act", "silu"),
      .tied = json.get_bool("tie_word_embeddings", false),
      .qkv_bias = qwen2 || json.get_bool("attention_bias", false),
      .out_bias = !qwen2 && json.get_bool("attention_bias", false),
      .mlp_bias = json.get_bool("mlp_bias", false),
      .head_norm = qwen3,
      .windows = read_windows(json, layers, asked),
      .sink_tokens = asked.sink_tokens,
      .rope = {},
  };
  c.rope = rope_options(json, c.sizes.head_size);
  c.max_positions = rope_positions(c.rope, c.max_positions);
  return c;
}

class Llama : public Model {
 public:
  explicit Llama(Config config) : c_(std::move(config)) {}

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
      const Value h = nn::rms_norm(s["input_layernorm"], x, c_.norm_eps);
      x = x + attention(s["self_attn"], h, step, angles, static_cast<int>(i));
      const Value f = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::gated_mlp(s["mlp"], f, c_.ffn_dim, c_.activation, c_.mlp_bias);
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::StepInputs& step, Value angles,
                  int layer) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.qkv_bias);
    nn::AttentionInputs in{.step = step, .layer = layer, .angles = angles};
    if (c_.head_norm) {
      in.q_norm = s["q_norm"].weight("weight", {c_.sizes.head_size});
      in.k_norm = s["k_norm"].weight("weight", {c_.sizes.head_size});
    }
    ops::Attention attrs =
        attention_of(c_.sizes, c_.windows[static_cast<size_t>(layer)], c_.sink_tokens);
    attrs.rotary_dim = c_.rope.rotary_dim;
    attrs.qk_norm = c_.head_norm;
    attrs.qk_norm_eps = c_.norm_eps;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.out_bias);
  }

  Config c_;
};

}  // namespace

Architecture model_llama() {
  return {
      .names = {"LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM",
                "Qwen2ForCausalLM", "Qwen3ForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Llama>(read_config(config, window));
      }};
}

}  // namespace millrace::models
