// StarCoder 2: Llama's attention with LayerNorm, biases everywhere and a feed-forward without
// gate; may look back through a sliding window.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

DecoderConfig read_config(const HfConfig& json, const WindowOptions& window) {
  DecoderConfig c = read_decoder(json, window,
                                 {.activation = "gelu_pytorch_tanh",
                                  .norm_eps_key = "norm_epsilon",
                                  .max_positions = 4096,
                                  .tied = true,
                                  .kv_heads = 2});
  const bool bias = json.get_bool("use_bias", true);
  c.biases = {bias, bias, bias};
  read_sliding_window(json, &c);
  return c;
}

class Starcoder2 : public PreNormDecoder<DecoderConfig> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value norm(const Scope& s, Value x) const override { return nn::layer_norm(s, x, c_.norm_eps); }
  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    return nn::mlp(s, x, c_.ffn_dim, c_.activation, {"c_fc", "c_proj"}, c_.biases.ffn);
  }
};

}  // namespace

Architecture model_starcoder2() {
  return {.names = {"Starcoder2ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Starcoder2, read_config>};
}

}  // namespace millrace::models
