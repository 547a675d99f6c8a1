// Baichuan 7B and 13B: Llama with Q, K and V stored as one (W_pack); 13B has ALiBi instead of
// rotary positions. Yang et al.: "Baichuan 2: open large-scale language models", 2023, sections 2.2
// and 2.3, of which this is the first generation.
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
  int64_t dim, ffn_dim, layers, vocab, positions;
  nn::QkvSizes sizes;
  double norm_eps;
  std::string activation;
  bool tied, alibi;
  WindowOptions window;
  ops::RopeAngles rope;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  if (json.has("z_loss_weight")) {
    json.fail("z_loss_weight", "says Baichuan 2, whose head is normalised: not supported",
              "use a checkpoint of Baichuan 7B or 13B");
  }
  const int64_t dim = json.get_int("hidden_size"), heads = json.get_int("num_attention_heads");
  // Only the configuration of 7B, which has rotary positions, has a number of them.
  const bool alibi = !json.has("max_position_embeddings");
  Config c{
      .dim = dim,
      .ffn_dim = json.get_int("intermediate_size"),
      .layers = json.get_int("num_hidden_layers"),
      .vocab = json.get_int("vocab_size"),
      .positions = json.get_int(alibi ? "model_max_length" : "max_position_embeddings", 4096),
      .sizes = {heads, heads, split_heads(json, "hidden_size", dim, "num_attention_heads", heads)},
      .norm_eps = json.get_float("rms_norm_eps", 1e-6, kPositive),
      .activation = read_activation(json, "hidden_act", "silu"),
      .tied = json.get_bool("tie_word_embeddings", false),
      .alibi = alibi,
      .window = window,
      .rope = {},
  };
  if (!alibi) c.rope = rope_options(json, c.sizes.head_size);
  return c;
}

class Baichuan : public Model {
 public:
  explicit Baichuan(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.positions; }

  std::vector<KvLayer> kv_layers() const override {
    const std::vector<int> windows(static_cast<size_t>(c_.layers), c_.window.window);
    return kv_layers_of(c_.sizes, windows, c_.window.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = c_.alibi ? Value{} : nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = nn::rms_norm(s["input_layernorm"], x, c_.norm_eps);
      x = x + attention(s["self_attn"], h, step, angles, static_cast<int>(i));
      const Value f = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::gated_mlp(s["mlp"], f, c_.ffn_dim, c_.activation);
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::StepInputs& step, Value angles,
                  int layer) const {
    const Value qkv = nn::linear(s["W_pack"], x, c_.sizes.all());
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    ops::Attention attrs = attention_of(c_.sizes, c_.window.window, c_.window.sink_tokens);
    attrs.rotary_dim = c_.rope.rotary_dim;
    if (c_.alibi) attrs.alibi_max_bias = 8;
    const Value o = nn::attention(attrs, q, k, v, {.step = step, .layer = layer, .angles = angles});
    return nn::linear(s["o_proj"], o, c_.dim);
  }

  Config c_;
};

}  // namespace

Architecture model_baichuan() {
  return {
      .names = {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Baichuan>(read_config(config, window));
      }};
}

}  // namespace millrace::models
