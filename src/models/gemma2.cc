// Gemma 2 and Gemma 3 (text): norms before and behind both halves of a layer, sliding windows in
// most layers. Gemma 2 bends the logits of attention and of the head; Gemma 3 normalises each head
// of Q and K instead, and rotates by other angles where a window slides.
#include <cmath>

#include "base/str.h"
#include "models/gemma_common.h"
#include "models/gqa_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr double kOne = 1;  // checkpoints hold the weights of norms minus 1

struct Config : DecoderConfig {
  double scale;
  double attention_cap, final_cap;  // 0: none
  bool head_norm;
  std::vector<std::string> types;  // of each layer: full_attention or sliding_attention
  ops::RopeAngles sliding_rope;
};

/// A soft cap: absent means `otherwise`, null means none.
double read_cap(const HfConfig& json, std::string_view key, double otherwise) {
  return json.is_null(key) ? 0 : json.get_float(key, otherwise, {0, 1e308});
}

void refuse_others(const HfConfig& json, bool gemma3) {
  if (json.get_bool("use_bidirectional_attention", false)) {
    json.fail("use_bidirectional_attention", "is not supported", "use a causal checkpoint");
  }
  if (gemma3 && json.has("attn_logit_softcapping")) {
    json.fail("attn_logit_softcapping", "is not supported for Gemma 3");
  }
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const bool gemma3 = json.architecture() == "Gemma3ForCausalLM";
  refuse_others(json, gemma3);
  const DecoderConfig base = read_decoder(json, asked,
                                          {.activation = "gelu_pytorch_tanh",
                                           .activation_key = "hidden_activation",
                                           .norm_eps = 1e-6,
                                           .max_positions = gemma3 ? 131072 : 8192,
                                           .tied = true,
                                           .head_size = 256,
                                           .rope = {.theta = gemma3 ? 1e6 : 1e4},
                                           .rope_layer_type = gemma3 ? "full_attention" : ""});
  // Every other layer slides, or for Gemma 3 all but every sixth.
  const int64_t period = gemma3 ? json.get_int("sliding_window_pattern", 6) : 2;
  Config c{base,
           1 / std::sqrt(json.get_float("query_pre_attn_scalar", 256, kPositive)),
           gemma3 ? 0 : read_cap(json, "attn_logit_softcapping", 50),
           read_cap(json, "final_logit_softcapping", gemma3 ? 0 : 30),
           gemma3,
           read_layer_types(json, base.layers,
                            [&](int64_t layer) {
                              return (layer + 1) % period == 0 ? "full_attention"
                                                               : "sliding_attention";
                            }),
           gemma3 ? sliding_rope_options(json, base.sizes.head_size,
                                         json.get_float("rope_local_base_freq", 10000, kPositive))
                  : base.rope};
  c.biases = read_biases(json);
  c.windows = windows_by_layer_type(json, c.types, asked);
  return c;
}

class Gemma2 : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = gemma_embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value full = nn::rope_angles(trace, step, c_.rope);
    const Value sliding =
        c_.sliding_rope == c_.rope ? full : nn::rope_angles(trace, step, c_.sliding_rope);
    for (size_t i = 0; i < c_.types.size(); ++i) {
      const Scope s = m["layers"][static_cast<int64_t>(i)];
      const Value angles = c_.types[i] == "full_attention" ? full : sliding;
      const Value a = attention(s["self_attn"], norm(s["input_layernorm"], x),
                                {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + norm(s["post_attention_layernorm"], a);
      const Value f = nn::gated_mlp(s["mlp"], norm(s["pre_feedforward_layernorm"], x), c_.ffn_dim,
                                    c_.activation);
      x = x + norm(s["post_feedforward_layernorm"], f);
    }
    x = norm(m["norm"], x);
    const Value logits = nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
    return c_.final_cap > 0 ? nn::softcap(logits, c_.final_cap) : logits;
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::rms_norm(s, x, c_.norm_eps, kOne); }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.scale = c_.scale;
    attrs.softcap = c_.attention_cap;
    attrs.qk_norm = c_.head_norm;
    attrs.qk_norm_eps = c_.norm_eps;
    attrs.qk_norm_offset = c_.head_norm ? kOne : 0;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }
};

}  // namespace

Architecture model_gemma2() {
  return {.names = {"Gemma2ForCausalLM", "Gemma3ForCausalLM"},
          .ignored_tensors = {R"(lm_head\.weight)"},
          .create = make_model<Gemma2, read_config>};
}

}  // namespace millrace::models
