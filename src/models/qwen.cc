// Qwen, first generation: Llama with GPT-2's tensor names, Q, K and V in one tensor with bias, and
// a feed-forward whose second input, w2, is the gate. Beyond the length of the training,
// seq_length, theta grows in steps and queries with the logarithm of their position. Bai et al.:
// "Qwen technical report", 2023, section 2.3.
#include "base/str.h"
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr PreNormNames kNames = {.model = "transformer",
                                 .embedding = "wte",
                                 .layers = "h",
                                 .attention_norm = "ln_1",
                                 .attention = "attn",
                                 .ffn_norm = "ln_2",
                                 .norm = "ln_f"};

struct Config : DecoderConfig {
  bool scale_by_head_size = true;
  int64_t logn_length = 0;  // beyond which queries are scaled; 0: never
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t layers = json.get_int("num_hidden_layers");
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t size = json.get_int("kv_channels", 128);
  const int64_t inner = json.get_int("intermediate_size");
  if (inner % 2 != 0) {
    json.fail("intermediate_size", str("is ", inner, ", which must be even"),
              "it counts w1 and w2 together");
  }
  Config c{{.dim = json.get_int("hidden_size"),
            .ffn_dim = inner / 2,
            .layers = layers,
            .vocab = json.get_int("vocab_size"),
            .max_positions = json.get_int("max_position_embeddings", 8192),
            .sizes = {heads, heads, size},
            .norm_eps = json.get_float("layer_norm_epsilon", 1e-6, kPositive),
            .activation = "silu",
            .tied = json.get_bool("tie_word_embeddings", false),
            .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
            .sink_tokens = window.sink_tokens,
            .rope = rope_options(json, size,
                                 {.theta_key = "rotary_emb_base", .partial_key = "rotary_pct"})}};
  c.biases.out = c.biases.ffn = !json.get_bool("no_bias", true);
  c.scale_by_head_size = json.get_bool("scale_attn_weights", true);
  const int64_t trained = json.get_int("seq_length", 8192);
  const bool ntk = json.get_bool("use_dynamic_ntk", true);
  const bool logn = json.get_bool("use_logn_attn", true);
  if (c.max_positions > trained && ntk) {
    c.rope.rule = "ntk_steps";
    c.rope.max_position = static_cast<double>(trained);
  }
  if (c.max_positions > trained && logn) c.logn_length = trained;
  return c;
}

class Qwen : public PreNormDecoder<Config> {
 public:
  explicit Qwen(const Config& config) : PreNormDecoder(config, kNames) {}

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    const auto [q, k, v] =
        nn::split_qkv(nn::linear(s["c_attn"], x, c_.sizes.all(), true), c_.sizes);
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.scale_by_head_size) attrs.scale = 1;
    s.enter();
    const Value scaled = c_.logn_length > 0 ? nn::scale_by_logn(q, in.step, c_.logn_length) : q;
    const Value o = nn::attention(attrs, scaled, k, v, in);
    return nn::linear(s["c_proj"], o, c_.dim, c_.biases.out);
  }

  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    return nn::gated_mlp(s, x, c_.ffn_dim, c_.activation, c_.biases.ffn,
                         {.gate = "w2", .up = "w1", .down = "c_proj"});
  }
};

}  // namespace

Architecture model_qwen() {
  return {.names = {"QWenLMHeadModel"},
          .ignored_tensors = {R"(transformer\.rotary_emb\.inv_freq)",
                              R"(transformer\.h\.\d+\.attn\.(masked_bias|bias|logn_tensor))"},
          .create = make_model<Qwen, read_config>};
}

}  // namespace millrace::models
