// Phi-3 and Phi-4: Llama with Q, K and V in one tensor and gate and up in another; longrope, also
// on a part of each head (Phi-4-mini); may look back through a sliding window.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

DecoderConfig read_config(const HfConfig& json, const WindowOptions& window) {
  DecoderConfig c = read_decoder(json, window, {.max_positions = 4096});
  if (c.rope.rule != "default" && c.rope.rule != "longrope") {
    json.fail("rope_scaling", str("asks for ", c.rope.rule, ", which Phi-3 does not know"),
              "supported are default and longrope");
  }
  if (c.rope.rule == "longrope" && !json.has("original_max_position_embeddings")) {
    json.fail("original_max_position_embeddings", "is missing", "longrope needs it");
  }
  read_sliding_window(json, &c);
  return c;
}

class Phi3 : public Decoder<DecoderConfig> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + attention(s["self_attn"], nn::rms_norm(s["input_layernorm"], x, c_.norm_eps),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value h = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::fused_gated_mlp(s["mlp"], h, c_.ffn_dim, c_.activation,
                                  {"gate_up_proj", "down_proj"});
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::split_qkv(nn::linear(s["qkv_proj"], x, c_.sizes.all()), c_.sizes);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim);
  }
};

}  // namespace

Architecture model_phi3() {
  return {.names = {"Phi3ForCausalLM"},
          .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                              R"(lm_head\.weight)"},
          .create = make_model<Phi3, read_config>};
}

}  // namespace millrace::models
