// Nemotron (Nemotron-3 and 4, Minitron): LayerNorms whose weights are stored minus 1, rotary
// positions on a part of each head, a feed-forward without gate and with squared ReLU.
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

DecoderConfig read_config(const HfConfig& json, const WindowOptions& window) {
  DecoderConfig c = read_decoder(json, window,
                                 {.activation = "relu2",
                                  .norm_eps_key = "norm_eps",
                                  .max_positions = 4096,
                                  .rope = {.partial = 0.5}});
  c.biases = read_biases(json, true);
  return c;
}

class Nemotron : public PreNormDecoder<DecoderConfig> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value norm(const Scope& s, Value x) const override {
    return nn::layer_norm(s, x, c_.norm_eps, {.weight_offset = 1});
  }
  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    return nn::mlp(s, x, c_.ffn_dim, c_.activation, {"up_proj", "down_proj"}, c_.biases.ffn);
  }
};

}  // namespace

Architecture model_nemotron() {
  return {.names = {"NemotronForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Nemotron, read_config>};
}

}  // namespace millrace::models
