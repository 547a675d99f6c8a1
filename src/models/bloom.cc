// BLOOM: ALiBi instead of positions, LayerNorm also behind the embedding, Q, K and V of one product
// whose rows are stored head by head.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool residual_after_norm;
};

/// Either spelling: checkpoints have both.
int64_t get_either(const HfConfig& json, std::string_view key, std::string_view other) {
  return json.has(other) ? json.get_int(other) : json.get_int(key);
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t dim = get_either(json, "hidden_size", "n_embed");
  const int64_t heads = get_either(json, "num_attention_heads", "n_head");
  const int64_t layers = get_either(json, "num_hidden_layers", "n_layer");
  return {{.dim = dim,
           .ffn_dim = 4 * dim,
           .layers = layers,
           .vocab = json.get_int("vocab_size"),
           .max_positions = json.get_int("seq_length", 2048),
           .sizes = {heads, heads, split_heads(json, "hidden_size", dim, "n_head", heads)},
           .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
           .activation = "gelu_pytorch_tanh",
           .tied = json.get_bool("tie_word_embeddings", true),
           .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
           .sink_tokens = window.sink_tokens,
           .alibi_max_bias = 8},
          json.get_bool("apply_residual_connection_post_layernorm", false)};
}

class Bloom : public Decoder<Config> {
 public:
  using Decoder::Decoder;

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
          attention(s["self_attention"], h, {.step = step, .layer = static_cast<int>(i)});
      const Value f = nn::layer_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = (c_.residual_after_norm ? f : x) +
          nn::mlp(s["mlp"], f, c_.ffn_dim, c_.activation, {"dense_h_to_4h", "dense_4h_to_h"});
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["word_embeddings"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::grouped_qkv(s["query_key_value"], x, c_.sizes, true);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["dense"], o, c_.dim, true);
  }
};

}  // namespace

Architecture model_bloom() {
  return {.names = {"BloomForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<Bloom, read_config>};
}

}  // namespace millrace::models
