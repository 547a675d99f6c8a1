// Granite: Llama with factors on the embeddings, on what each layer adds, on attention's scores and
// on the logits.
#include "models/gqa_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  double embedding = 1, residual = 1, attention = 1, logits = 1;  // factors
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window, {.norm_eps = 1e-6})};
  c.biases = read_biases(json, true);
  c.embedding = json.get_float("embedding_multiplier", 1.0);
  c.residual = json.get_float("residual_multiplier", 1.0);
  c.attention = json.get_float("attention_multiplier", 1.0, kPositive);
  c.logits = 1 / json.get_float("logits_scaling", 1.0, kPositive);
  return c;
}

class Granite : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    const Value rows = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);
    Value x = nn::scale(rows, c_.embedding);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = nn::rms_norm(s["input_layernorm"], x, c_.norm_eps);
      const Value a = attention(s["self_attn"], h,
                                {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + nn::scale(a, c_.residual);
      const Value g = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      const Value f = nn::gated_mlp(s["mlp"], g, c_.ffn_dim, c_.activation, c_.biases.ffn);
      x = x + nn::scale(f, c_.residual);
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    const Value logits = nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
    return nn::scale(logits, c_.logits);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.scale = c_.attention;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }
};

}  // namespace

Architecture model_granite() {
  return {.names = {"GraniteForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Granite, read_config>};
}

}  // namespace millrace::models
