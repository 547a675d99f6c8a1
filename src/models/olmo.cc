// OLMo 1: Llama with LayerNorms that have no weights, and Q, K and V cut to a range.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false;
  double clip = 0;  // largest size of an element of Q, K and V; 0: any
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window, {})};
  c.norm_eps = 1e-5;  // no key says another
  c.bias = json.get_bool("attention_bias", false);
  if (json.has("clip_qkv")) c.clip = json.get_float("clip_qkv", kPositive);
  return c;
}

class Olmo : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + attention(s["self_attn"], norm(s["input_layernorm"], x),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + nn::gated_mlp(s["mlp"], norm(s["post_attention_layernorm"], x), c_.ffn_dim,
                            c_.activation);
    }
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], norm(m["norm"], x), c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const {
    return nn::layer_norm(s, x, c_.norm_eps, {.weight = false, .bias = false});
  }
  Value clip(Value x) const { return c_.clip > 0 ? nn::clamp(x, -c_.clip, c_.clip) : x; }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), clip(q), clip(k), clip(v), in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_olmo() {
  return {
      .names = {"OlmoForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Olmo>(read_config(config, window));
      }};
}

}  // namespace millrace::models
