// MPT: ALiBi instead of positions, LayerNorm without bias, no biases anywhere, Q, K and V of one
// product that may be clipped.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr PreNormNames kNames = {.model = "transformer",
                                 .embedding = "wte",
                                 .layers = "blocks",
                                 .attention_norm = "norm_1",
                                 .attention = "attn",
                                 .ffn_norm = "norm_2",
                                 .ffn = "ffn",
                                 .norm = "norm_f"};

struct Config : DecoderConfig {
  double clip;   // largest size of an element of Q, K and V; 0: any
  double scale;  // of the scores; 0: 1/sqrt(D)
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
  const int64_t layers = json.get_int("n_layers");
  return {{.dim = dim,
           .ffn_dim = dim * json.get_int("expansion_ratio", 4),
           .layers = layers,
           .vocab = json.get_int("vocab_size"),
           .max_positions = json.get_int("max_seq_len", 2048),
           .sizes = {heads, heads, split_heads(json, "d_model", dim, "n_heads", heads)},
           .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
           .activation = "gelu",
           .tied = json.get_bool("tie_word_embeddings", true),
           .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
           .sink_tokens = window.sink_tokens,
           .alibi_max_bias = attention.get_float("alibi_bias_max", 8, kPositive)},
          attention.get_float("clip_qkv", 0, {0, 1e308}),
          attention.get_float("softmax_scale", 0, {0, 1e308})};
}

class Mpt : public PreNormDecoder<Config> {
 public:
  explicit Mpt(const Config& config) : PreNormDecoder(config, kNames) {}

 private:
  Value norm(const Scope& s, Value x) const override {
    return nn::layer_norm(s, x, c_.norm_eps, {.bias = false});
  }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    Value qkv = nn::linear(s["Wqkv"], x, c_.sizes.all());
    if (c_.clip > 0) qkv = nn::clamp(qkv, -c_.clip, c_.clip);
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    ops::Attention attrs = attention_attrs(in.layer);
    if (c_.scale > 0) attrs.scale = c_.scale;
    return nn::linear(s["out_proj"], nn::attention(attrs, q, k, v, in), c_.dim);
  }

  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    return nn::mlp(s, x, c_.ffn_dim, c_.activation, {"up_proj", "down_proj"}, false);
  }
};

}  // namespace

Architecture model_mpt() {
  return {.names = {"MptForCausalLM", "MPTForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<Mpt, read_config>};
}

}  // namespace millrace::models
