// Falcon: 7B (one KV head, attention and feed-forward side by side), 40B and 180B (grouped KV
// heads, a norm for each side), 11B (grouped, one norm) and RW (ALiBi, biases, one after the
// other). Q, K and V are one product whose rows are stored by KV head.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool parallel, two_norms;
};

nn::QkvSizes read_sizes(const HfConfig& json, bool grouped, int64_t dim) {
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t size = split_heads(json, "hidden_size", dim, "num_attention_heads", heads);
  const int64_t kv_heads = json.get_int("num_kv_heads", heads);
  const bool multi_query = json.get_bool("multi_query", true);
  if (!grouped && multi_query) return {heads, 1, size};
  if (!grouped && kv_heads != heads) {
    json.fail("num_kv_heads", str("is ", kv_heads, " for ", heads, " heads"),
              "grouped KV heads need new_decoder_architecture");
  }
  return check_heads(json, "num_attention_heads", heads, "num_kv_heads", kv_heads, size);
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const int64_t dim = json.get_int("hidden_size");
  const bool grouped = json.get_bool("new_decoder_architecture", false);
  const int64_t layers = json.get_int("num_hidden_layers");
  const bool bias = json.get_bool("bias", false);
  Config c{{.dim = dim,
            .ffn_dim = json.get_int("ffn_hidden_size", 4 * dim),
            .layers = layers,
            .vocab = json.get_int("vocab_size"),
            .max_positions = json.get_int("max_position_embeddings", 2048),
            .sizes = read_sizes(json, grouped, dim),
            .norm_eps = json.get_float("layer_norm_epsilon", 1e-5, kPositive),
            .activation = read_activation(json, "activation", "gelu"),
            .tied = json.get_bool("tie_word_embeddings", true),
            .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
            .sink_tokens = window.sink_tokens,
            .biases = {bias, bias, bias}},
           json.get_bool("parallel_attn", true),
           json.get_int("num_ln_in_parallel_attn", grouped ? 2 : 1, {1, 2}) == 2};
  if (grouped && !c.parallel) {
    json.fail("parallel_attn", "is false, which new_decoder_architecture does not know");
  }
  if (!grouped && c.two_norms) {
    json.fail("num_ln_in_parallel_attn", "is 2, which needs new_decoder_architecture");
  }
  if (json.get_bool("alibi", false)) {
    c.alibi_max_bias = 8;
  } else {
    c.rope = rope_options(json, c.sizes.head_size);
  }
  return c;
}

class Falcon : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["transformer"];
    Value x = nn::embedding(m["word_embeddings"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    Value angles;
    if (c_.rope.rotary_dim > 0) angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      const Value h =
          nn::layer_norm(s[c_.two_norms ? "ln_attn" : "input_layernorm"], x, c_.norm_eps);
      const Value a = attention(s["self_attention"], h,
                                {.step = step, .layer = static_cast<int>(i), .angles = angles});
      if (c_.parallel) {
        const Value f = c_.two_norms ? nn::layer_norm(s["ln_mlp"], x, c_.norm_eps) : h;
        x = x + (feed_forward(s["mlp"], f) + a);
      } else {
        x = x + a;
        const Value f = nn::layer_norm(s["post_attention_layernorm"], x, c_.norm_eps);
        x = x + feed_forward(s["mlp"], f);
      }
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["word_embeddings"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::grouped_qkv(s["query_key_value"], x, c_.sizes, c_.biases.qkv);
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.alibi_bf16 = c_.alibi_max_bias > 0;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, in);
    return nn::linear(s["dense"], o, c_.dim, c_.biases.out);
  }

  Value feed_forward(const Scope& s, Value x) const {
    return nn::mlp(s, x, c_.ffn_dim, c_.activation, {"dense_h_to_4h", "dense_4h_to_h"},
                   c_.biases.ffn);
  }
};

}  // namespace

Architecture model_falcon() {
  return {.names = {"FalconForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<Falcon, read_config>};
}

}  // namespace millrace::models
