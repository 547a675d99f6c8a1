// OLMo 2: Llama whose norms follow attention and feed-forward instead of leading them, and go over
// whole rows of Q and K. In OLMo 3 three of four layers look back through a window, and only the
// others have scaled rotary positions.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  ops::RopeAngles sliding_rope = {};
  std::vector<std::string> types = {};  // of each layer: full_attention or sliding_attention
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const bool third = json.architecture() == "Olmo3ForCausalLM";
  Config c{read_decoder(json, window,
                        {.rope = {.theta = third ? 500000.0 : 10000.0},
                         .rope_layer_type = third ? "full_attention" : ""})};
  c.biases = read_biases(json);
  c.sliding_rope = c.rope;
  if (!third) {
    c.types.assign(static_cast<size_t>(c.layers), "full_attention");
    return c;
  }
  c.sliding_rope = sliding_rope_options(json, c.sizes.head_size, c.rope.theta);
  c.types = read_layer_types(json, c.layers, [](int64_t layer) {
    return (layer + 1) % 4 == 0 ? "full_attention" : "sliding_attention";
  });
  c.windows = windows_by_layer_type(json, c.types, window);
  return c;
}

class Olmo2 : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value full = nn::rope_angles(trace, step, c_.rope);
    const Value sliding = nn::rope_angles(trace, step, c_.sliding_rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const bool slides = c_.types[static_cast<size_t>(i)] == "sliding_attention";
      const Value a = attention(
          s["self_attn"], x,
          {.step = step, .layer = static_cast<int>(i), .angles = slides ? sliding : full});
      x = x + norm(s["post_attention_layernorm"], a);
      const Value f = nn::gated_mlp(s["mlp"], x, c_.ffn_dim, c_.activation);
      x = x + norm(s["post_feedforward_layernorm"], f);
    }
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], norm(m["norm"], x), c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::rms_norm(s, x, c_.norm_eps); }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.biases.qkv);
    const Value q_normed = norm(s["q_norm"], q), k_normed = norm(s["k_norm"], k);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q_normed, k_normed, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.biases.out);
  }
};

}  // namespace

Architecture model_olmo2() {
  return {.names = {"Olmo2ForCausalLM", "Olmo3ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Olmo2, read_config>};
}

}  // namespace millrace::models
