// StableLM: Llama with LayerNorm and rotary positions on a quarter of each head; StableLM 2 has
// biases on Q, K and V; its 12B reads one norm for attention and feed-forward and normalises each
// head of Q and K with weights of its own.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool qkv_bias = false, head_norm = false, parallel = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.norm_eps_key = "layer_norm_eps",
                         .max_positions = 4096,
                         .kv_heads = 32,
                         .rope = {.partial = 0.25}})};
  c.qkv_bias = json.get_bool("use_qkv_bias", false);
  c.head_norm = json.get_bool("qk_layernorm", false);
  c.parallel = json.get_bool("use_parallel_residual", false);
  return c;
}

class StableLm : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      Value h = nn::layer_norm(s["input_layernorm"], x, c_.norm_eps);
      x = x + attention(s["self_attn"], h,
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      if (!c_.parallel) h = nn::layer_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::gated_mlp(s["mlp"], h, c_.ffn_dim, c_.activation);
    }
    x = nn::layer_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.qkv_bias);
    if (c_.head_norm) {
      q = nn::layer_norm_of_parts(s["q_layernorm"]["norms"], q, c_.sizes.heads, c_.norm_eps);
      k = nn::layer_norm_of_parts(s["k_layernorm"]["norms"], k, c_.sizes.kv_heads, c_.norm_eps);
    }
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim);
  }
};

}  // namespace

Architecture model_stablelm() {
  return {.names = {"StableLmForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<StableLm, read_config>};
}

}  // namespace millrace::models
