// Baichuan 1 and 2, 7B and 13B: Llama with Q, K and V stored as one (W_pack); 13B has ALiBi instead
// of rotary positions. Baichuan 2 divides the rows of the head by their length. Yang et al.:
// "Baichuan 2: open large-scale language models", 2023, sections 2.2 and 2.3.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool second = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window, {.norm_eps = 1e-6, .max_positions = 4096})};
  c.second = json.has("z_loss_weight");  // only its configurations have one
  // Only the configuration of 7B, which has rotary positions, has a number of them.
  if (!json.has("max_position_embeddings")) {
    c.max_positions = json.get_int("model_max_length", 4096);
    c.rope = {};
    c.alibi_max_bias = 8;
  }
  return c;
}

class Baichuan : public PreNormDecoder<Config> {
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
  Value logits(const Scope& s, Value x) const override {
    return c_.second ? nn::unit_rows_logits(s, x, c_.vocab) : PreNormDecoder::logits(s, x);
  }
};

}  // namespace

Architecture model_baichuan() {
  return {.names = {"BaichuanForCausalLM", "BaiChuanForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Baichuan, read_config>};
}

}  // namespace millrace::models
