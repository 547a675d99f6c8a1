// ChatGLM 2 and 3, and GLM-4 in the same format: rotary positions on half of each head in
// neighbouring pairs, Q, K and V in one tensor, gate and up in another, RMSNorm or LayerNorm; the
// residual may start behind the norm.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false, qkv_bias = false, multi_query = false;
  bool rms_norm = true, final_norm = true, normed_residual = false;
};

void refuse_unknown_options(const HfConfig& json) {
  for (const char* key : {"quantization_bit", "pre_seq_len"}) {
    if (json.get_int(key, 0, {0, 1 << 30}) != 0) json.fail(key, "is not supported");
  }
  if (!json.get_bool("original_rope", true)) json.fail("original_rope", "false is not supported");
}

nn::QkvSizes read_sizes(const HfConfig& json, int64_t dim, bool multi_query) {
  const int64_t heads = json.get_int("num_attention_heads");
  const int64_t size = json.has("kv_channels")
                           ? json.get_int("kv_channels")
                           : split_heads(json, "hidden_size", dim, "num_attention_heads", heads);
  if (size % 4 != 0) json.fail("kv_channels", str("is ", size, ", not a multiple of 4"));
  return check_heads(json, "num_attention_heads", heads, "multi_query_group_num",
                     multi_query ? json.get_int("multi_query_group_num", 1) : heads, size);
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  refuse_unknown_options(json);
  const int64_t dim = json.get_int("hidden_size");
  const int64_t layers = json.get_int("num_layers");
  const bool multi_query = json.get_bool("multi_query_attention", false);
  Config c{{.dim = dim,
            .ffn_dim = json.get_int("ffn_hidden_size"),
            .layers = layers,
            .vocab = json.get_int("padded_vocab_size"),
            .max_positions = json.get_int("seq_length", 2048),
            .sizes = read_sizes(json, dim, multi_query),
            .norm_eps = json.get_float("layernorm_epsilon", 1e-5, kPositive),
            .activation = "silu",
            .tied = json.get_bool("tie_word_embeddings", false),
            .windows = std::vector<int>(static_cast<size_t>(layers), window.window),
            .sink_tokens = window.sink_tokens}};
  c.bias = json.get_bool("add_bias_linear", false);
  c.qkv_bias = c.bias || json.get_bool("add_qkv_bias", false);
  c.multi_query = multi_query;
  c.rms_norm = json.get_bool("rmsnorm", true);
  c.final_norm = json.get_bool("post_layer_norm", true);
  c.normed_residual = json.get_bool("apply_residual_connection_post_layernorm", false);
  c.rope.rotary_dim = static_cast<int>(c.sizes.head_size / 2);
  c.rope.theta = 10000 * json.get_float("rope_ratio", 1, kPositive);
  return c;
}

class ChatGlm : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope m = Scope(trace)["transformer"];
    const Scope embedding = m["embedding"]["word_embeddings"];
    Value x = nn::embedding(embedding, step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["encoder"]["layers"][i];
      Value h = norm(s["input_layernorm"], x);
      x = residual(x, h) +
          attention(s["self_attention"], h,
                    {.step = step, .layer = static_cast<int>(i), .angles = angles});
      h = norm(s["post_attention_layernorm"], x);
      x = residual(x, h) + nn::fused_gated_mlp(s["mlp"], h, c_.ffn_dim, c_.activation,
                                               {"dense_h_to_4h", "dense_4h_to_h"}, c_.bias);
    }
    if (c_.final_norm) x = norm(m["encoder"]["final_layernorm"], x);
    return nn::logits(c_.tied ? embedding : m["output_layer"], x, c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const {
    return c_.rms_norm ? nn::rms_norm(s, x, c_.norm_eps) : nn::layer_norm(s, x, c_.norm_eps);
  }
  /// What a part of a layer adds to: its input before or behind the norm.
  Value residual(Value x, Value normed) const { return c_.normed_residual ? normed : x; }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const Scope layer = s["query_key_value"];
    const auto [q, k, v] =
        c_.multi_query ? nn::split_qkv(nn::linear(layer, x, c_.sizes.all(), c_.qkv_bias), c_.sizes)
                       : nn::grouped_qkv(layer, x, c_.sizes, c_.qkv_bias);
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.interleaved = true;
    s.enter();
    return nn::linear(s["dense"], nn::attention(attrs, q, k, v, in), c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_chatglm() {
  return {.names = {"ChatGLMModel", "ChatGLMForConditionalGeneration"},
          .ignored_tensors = {R"(transformer\.rotary_pos_emb\.inv_freq)"},
          .create = make_model<ChatGlm, read_config>};
}

}  // namespace millrace::models
