// OPT and Galactica: learned positions from row 2 of their table on, norms before each part or,
// as in opt-350m, behind it, where embeddings are also narrower than the layers.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr int kFirstPosition = 2;  // rows of the table before that of position 0

struct Config : DecoderConfig {
  int64_t embedding_dim = 0;
  bool norm_first = true, final_norm = true, bias = true;
  nn::LayerNormOptions norm{};
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t dim = json.get_int("hidden_size");
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t layers = json.get_int("num_hidden_layers");
  Config c{
      {.dim = dim,
       .ffn_dim = json.get_int("ffn_dim"),
       .layers = layers,
       .vocab = json.get_int("vocab_size"),
       .max_positions = json.get_int("max_position_embeddings", 2048),
       .sizes = {heads, heads, split_heads(json, "hidden_size", dim, "num_attention_heads", heads)},
       .norm_eps = 1e-5,
       .activation = read_activation(json, "activation_function", "relu"),
       .tied = json.get_bool("tie_word_embeddings", true),
       .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
       .sink_tokens = window.sink_tokens}};
  c.embedding_dim = json.get_int("word_embed_proj_dim", dim);
  c.norm_first = json.get_bool("do_layer_norm_before", true);
  c.final_norm = c.norm_first && !json.get_bool("_remove_final_layer_norm", false);
  c.bias = json.get_bool("enable_bias", true);
  c.norm.weight = c.norm.bias = json.get_bool("layer_norm_elementwise_affine", true);
  return c;
}

class Opt : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    // Checkpoints saved from the bare model lack the prefix.
    const Scope m =
        root.has("decoder.embed_tokens.weight") ? root["decoder"] : root["model"]["decoder"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.embedding_dim);
    const bool projected = c_.embedding_dim != c_.dim;
    if (projected) x = nn::linear(m["project_in"], x, c_.dim);
    x = x + nn::embedding(m["embed_positions"], step.position_ids,
                          c_.max_positions + kFirstPosition, c_.dim, kFirstPosition);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = norm_before(s["self_attn_layer_norm"], x);
      x = x + attention(s["self_attn"], h, {.step = step, .layer = static_cast<int>(i)});
      x = norm_behind(s["self_attn_layer_norm"], x);
      const Value f = norm_before(s["final_layer_norm"], x);
      x = x + nn::mlp(s, f, c_.ffn_dim, c_.activation, "fc1", "fc2", c_.bias);
      x = norm_behind(s["final_layer_norm"], x);
    }
    if (c_.final_norm) x = norm(m["final_layer_norm"], x);
    if (projected) x = nn::linear(m["project_out"], x, c_.embedding_dim);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::layer_norm(s, x, c_.norm_eps, c_.norm); }
  Value norm_before(const Scope& s, Value x) const { return c_.norm_first ? norm(s, x) : x; }
  Value norm_behind(const Scope& s, Value x) const { return c_.norm_first ? x : norm(s, x); }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["out_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_opt() {
  return {.names = {"OPTForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<Opt, read_config>};
}

}  // namespace millrace::models
