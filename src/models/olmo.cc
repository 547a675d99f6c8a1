// OLMo 1: Llama with LayerNorms that have no weights, and Q, K and V cut to a range.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  double clip = 0;  // largest size of an element of Q, K and V; 0: any
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window, {})};
  c.norm_eps = 1e-5;  // no key says another
  c.biases = read_biases(json);
  if (json.has("clip_qkv")) c.clip = json.get_float("clip_qkv", kPositive);
  return c;
}

class Olmo : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value norm(const Scope& s, Value x) const override {
    return nn::layer_norm(s, x, c_.norm_eps, {.weight = false, .bias = false});
  }
  Value clip(Value x) const { return c_.clip > 0 ? nn::clamp(x, -c_.clip, c_.clip) : x; }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.biases.qkv);
    s.enter();
    const Value q_cut = clip(q), k_cut = clip(k), v_cut = clip(v);
    const Value o = nn::attention(attention_attrs(in.layer), q_cut, k_cut, v_cut, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.biases.out);
  }
};

}  // namespace

Architecture model_olmo() {
  return {.names = {"OlmoForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Olmo, read_config>};
}

}  // namespace millrace::models
