// Gemma (the first): Llama with embeddings times sqrt(dim), norms whose weights are stored minus 1,
// and GELU in the feed-forward.
#include "base/str.h"
#include "models/gemma_common.h"
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

DecoderConfig read_config(const HfConfig& json, const WindowOptions& window) {
  DecoderConfig c = read_decoder(json, window,
                                 {.activation = "gelu_pytorch_tanh",
                                  .norm_eps = 1e-6,
                                  .max_positions = 8192,
                                  .tied = true,
                                  .head_size = 256,
                                  .kv_heads = 16});
  // The first checkpoints say gelu and mean the tanh approximation they were trained with.
  if (c.activation == "gelu") c.activation = "gelu_pytorch_tanh";
  if (json.get_string("hidden_activation", c.activation) != c.activation) {
    json.fail("hidden_activation", str("differs from hidden_act, ", c.activation));
  }
  if (json.get_bool("use_bidirectional_attention", false)) {
    json.fail("use_bidirectional_attention", "is not supported", "use a decoder checkpoint");
  }
  c.biases = read_biases(json);
  return c;
}

class Gemma : public PreNormDecoder<DecoderConfig> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value embedding(const Scope& s, Value ids) const override {
    return gemma_embedding(s, ids, c_.vocab, c_.dim);
  }
  Value norm(const Scope& s, Value x) const override { return nn::rms_norm(s, x, c_.norm_eps, 1); }
};

}  // namespace

Architecture model_gemma() {
  return {.names = {"GemmaForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Gemma, read_config>};
}

}  // namespace millrace::models
