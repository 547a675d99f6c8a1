// Baichuan 7B and 13B: Llama with Q, K and V stored as one (W_pack); 13B has ALiBi instead of
// rotary positions. Yang et al.: "Baichuan 2: open large-scale language models", 2023, sections 2.2
// and 2.3, of which this is the first generation.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

DecoderConfig read_config(const HfConfig& json, const WindowOptions& window) {
  if (json.has("z_loss_weight")) {
    json.fail("z_loss_weight", "says Baichuan 2, whose head is normalised: not supported",
              "use a checkpoint of Baichuan 7B or 13B");
  }
  DecoderConfig c = read_decoder(json, window, {.norm_eps = 1e-6, .max_positions = 4096});
  // Only the configuration of 7B, which has rotary positions, has a number of them.
  if (!json.has("max_position_embeddings")) {
    c.max_positions = json.get_int("model_max_length", 4096);
    c.rope = {};
    c.alibi_max_bias = 8;
  }
  return c;
}

class Baichuan : public PreNormDecoder<DecoderConfig> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    const Value qkv = nn::linear(s["W_pack"], x, c_.sizes.all());
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim);
  }
};

}  // namespace

Architecture model_baichuan() {
  return {.names = {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Baichuan, read_config>};
}

}  // namespace millrace::models
