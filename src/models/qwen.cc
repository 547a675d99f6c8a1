// Qwen, first generation: Llama with GPT-2's tensor names, Q, K and V in one tensor with bias, and
// a feed-forward whose second input, w2, is the gate.
#include <algorithm>

#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false, scale_by_head_size = true;
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
  c.bias = !json.get_bool("no_bias", true);
  c.scale_by_head_size = json.get_bool("scale_attn_weights", true);
  // Both change frequencies and queries only beyond the length of the training.
  const bool ntk = json.get_bool("use_dynamic_ntk", true);
  const bool logn = json.get_bool("use_logn_attn", true);
  if (ntk || logn) c.max_positions = std::min(c.max_positions, json.get_int("seq_length", 8192));
  return c;
}

class Qwen : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["transformer"];
    Value x = nn::embedding(m["wte"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      x = x + attention(s["attn"], nn::rms_norm(s["ln_1"], x, c_.norm_eps),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + nn::gated_mlp(s["mlp"], nn::rms_norm(s["ln_2"], x, c_.norm_eps), c_.ffn_dim,
                            c_.activation, c_.bias, {.gate = "w2", .up = "w1", .down = "c_proj"});
    }
    x = nn::rms_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] =
        nn::split_qkv(nn::linear(s["c_attn"], x, c_.sizes.all(), true), c_.sizes);
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.scale_by_head_size) attrs.scale = 1;
    s.enter();
    return nn::linear(s["c_proj"], nn::attention(attrs, q, k, v, in), c_.dim, c_.bias);
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
