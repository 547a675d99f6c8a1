// StarCoder 2: Llama's attention with LayerNorm, biases everywhere and a feed-forward without
// gate; may look back through a sliding window.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = true;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.activation = "gelu_pytorch_tanh",
                         .norm_eps_key = "norm_epsilon",
                         .max_positions = 4096,
                         .tied = true,
                         .kv_heads = 2})};
  c.bias = json.get_bool("use_bias", true);
  read_sliding_window(json, &c);
  return c;
}

class Starcoder2 : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + attention(s["self_attn"], nn::layer_norm(s["input_layernorm"], x, c_.norm_eps),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value h = nn::layer_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::mlp(s["mlp"], h, c_.ffn_dim, c_.activation, "c_fc", "c_proj", c_.bias);
    }
    x = nn::layer_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_starcoder2() {
  return {.names = {"Starcoder2ForCausalLM"},
          .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                              R"(lm_head\.weight)"},
          .create = make_model<Starcoder2, read_config>};
}

}  // namespace millrace::models
