// Phi-3 and Phi-4: Llama with Q, K and V in one tensor and gate and up in another; longrope, also
// on a part of each head (Phi-4-mini); may look back through a sliding window.
#include "base/str.h"
#include "models/pre_norm_common.h"

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

class Phi3 : public PreNormDecoder<DecoderConfig> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    const auto [q, k, v] = nn::split_qkv(nn::linear(s["qkv_proj"], x, c_.sizes.all()), c_.sizes);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim);
  }

  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    return nn::fused_gated_mlp(s, x, c_.ffn_dim, c_.activation, {"gate_up_proj", "down_proj"});
  }
};

}  // namespace

Architecture model_phi3() {
  return {.names = {"Phi3ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Phi3, read_config>};
}

}  // namespace millrace::models
