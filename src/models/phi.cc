// Phi-1, Phi-1.5 and Phi-2: attention and feed-forward read the same normed input, rotary positions
// on half of each head, biases everywhere, in the head too; Q and K may have a LayerNorm per head.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool head_norm = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(
      json, window,
      {.activation = "gelu_new", .norm_eps_key = "layer_norm_eps", .rope = {.partial = 0.5}})};
  c.head_norm = json.get_bool("qk_layernorm", false);
  return c;
}

class Phi : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = nn::layer_norm(s["input_layernorm"], x, c_.norm_eps);
      const Value a = attention(s["self_attn"], h,
                                {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = a + nn::mlp(s["mlp"], h, c_.ffn_dim, c_.activation, {"fc1", "fc2"}) + x;
    }
    x = nn::layer_norm(m["final_layernorm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab,
                      root["lm_head"].weight("bias", {c_.vocab}));
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, true);
    if (c_.head_norm) {
      q = norm_of_heads(s["q_layernorm"], q, c_.sizes.heads);
      k = norm_of_heads(s["k_layernorm"], k, c_.sizes.kv_heads);
    }
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["dense"], o, c_.dim, true);
  }

  Value norm_of_heads(const Scope& s, Value x, int64_t heads) const {
    return nn::layer_norm(s, x, c_.norm_eps,
                          {.groups = static_cast<int>(heads), .shared_weight = true});
  }
};

}  // namespace

Architecture model_phi() {
  return {.names = {"PhiForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Phi, read_config>};
}

}  // namespace millrace::models
