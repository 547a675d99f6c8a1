// GLM-4 as transformers stores it, `glm` and `glm4`: Llama with biases on Q, K and V, rotary
// positions on half of each head in neighbouring pairs, gate and up in one tensor. `glm4` also
// norms what attention and feed-forward add to the residual stream.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool qkv_bias = true, post_norms = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.norm_eps = 1.5625e-7,
                         .max_positions = 131072,
                         .head_size = 128,
                         .kv_heads = 2,
                         .rope = {.partial = 0.5}})};
  c.qkv_bias = json.get_bool("attention_bias", true);
  c.post_norms = json.architecture() == "Glm4ForCausalLM";
  return c;
}

class Glm : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value a = attention(s["self_attn"], norm(s["input_layernorm"], x),
                                {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + post_norm(s["post_self_attn_layernorm"], a);
      const Value f = nn::fused_gated_mlp(s["mlp"], norm(s["post_attention_layernorm"], x),
                                          c_.ffn_dim, c_.activation, {"gate_up_proj", "down_proj"});
      x = x + post_norm(s["post_mlp_layernorm"], f);
    }
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], norm(m["norm"], x), c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::rms_norm(s, x, c_.norm_eps); }
  Value post_norm(const Scope& s, Value x) const { return c_.post_norms ? norm(s, x) : x; }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.qkv_bias);
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.interleaved = true;
    s.enter();
    return nn::linear(s["o_proj"], nn::attention(attrs, q, k, v, in), c_.dim);
  }
};

}  // namespace

Architecture model_glm() {
  return {.names = {"GlmForCausalLM", "Glm4ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Glm, read_config>};
}

}  // namespace millrace::models
