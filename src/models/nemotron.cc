// Nemotron (Nemotron-3 and 4, Minitron): LayerNorms whose weights are stored minus 1, rotary
// positions on a part of each head, a feed-forward without gate and with squared ReLU.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false, mlp_bias = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.activation = "relu2",
                         .norm_eps_key = "norm_eps",
                         .max_positions = 4096,
                         .rope = {.partial = 0.5}})};
  c.bias = json.get_bool("attention_bias", false);
  c.mlp_bias = json.get_bool("mlp_bias", false);
  return c;
}

class Nemotron : public Decoder<Config> {
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
      x = x + nn::mlp(s["mlp"], norm(s["post_attention_layernorm"], x), c_.ffn_dim, c_.activation,
                      "up_proj", "down_proj", c_.mlp_bias);
    }
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], norm(m["norm"], x), c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const {
    return nn::layer_norm(s, x, c_.norm_eps, {.weight_offset = 1});
  }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_nemotron() {
  return {
      .names = {"NemotronForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Nemotron>(read_config(config, window));
      }};
}

}  // namespace millrace::models
