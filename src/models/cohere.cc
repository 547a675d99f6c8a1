// Cohere's Command-R and Command-R7B (Cohere 2): attention and feed-forward side by side behind one
// LayerNorm without bias, rotary positions in pairs of neighbours, logits times a factor.
// Command-R+ normalises each head of Q and K with weights of its own. In Cohere 2 most layers look
// back through a window, and those that do not have no positions.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false, head_norm = false;
  double logit_scale = 1;
  std::vector<bool> rotated = {};  // whether the layer has rotary positions
};

// Of Cohere 2: `layer_types`, or full attention in every layer whose number, from 1, is a multiple
// of `sliding_window_pattern`.
void read_windows(const HfConfig& json, const WindowOptions& window, Config* c) {
  const int64_t pattern = json.get_int("sliding_window_pattern", 4);
  const std::vector<std::string> types = read_layer_types(json, c->layers, [&](int64_t layer) {
    return (layer + 1) % pattern != 0 ? "sliding_attention" : "full_attention";
  });
  c->windows = windows_by_layer_type(json, types, window);
  for (size_t i = 0; i < types.size(); ++i)
    c->rotated[i] = types[i] == "sliding_attention";
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  const bool second = json.architecture() == "Cohere2ForCausalLM";
  Config c{read_decoder(json, window,
                        {.norm_eps_key = "layer_norm_eps",
                         .max_positions = 8192,
                         .tied = true,
                         .rope = {.theta = second ? 10000.0 : 500000.0}})};
  c.bias = json.get_bool("attention_bias", false);
  c.logit_scale = json.get_float("logit_scale", 0.0625);
  c.rotated.assign(static_cast<size_t>(c.layers), true);
  if (second) {
    read_windows(json, window, &c);
  } else {
    c.head_norm = json.get_bool("use_qk_norm", false);
  }
  return c;
}

class Cohere : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = nn::layer_norm(s["input_layernorm"], x, c_.norm_eps, {.bias = false});
      x = x + attention(s["self_attn"], h,
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + nn::gated_mlp(s["mlp"], h, c_.ffn_dim, c_.activation);
    }
    x = nn::layer_norm(m["norm"], x, c_.norm_eps, {.bias = false});
    const Value logits = nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
    return nn::scale(logits, c_.logit_scale);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    if (c_.head_norm) {
      q = norm_of_heads(s["q_norm"], q, c_.sizes.heads);
      k = norm_of_heads(s["k_norm"], k, c_.sizes.kv_heads);
    }
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.interleaved = true;
    if (!c_.rotated[static_cast<size_t>(in.layer)]) attrs.rotary_dim = 0;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }

  Value norm_of_heads(const Scope& s, Value x, int64_t heads) const {
    return nn::layer_norm(s, x, c_.norm_eps, {.bias = false, .groups = static_cast<int>(heads)});
  }
};

}  // namespace

Architecture model_cohere() {
  return {.names = {"CohereForCausalLM", "Cohere2ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Cohere, read_config>};
}

}  // namespace millrace::models
