// Mixtral: Mistral with a feed-forward of experts in every layer.
#include "models/pre_norm_common.h"
#include "nn/experts.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  nn::GatedExperts experts;
  int experts_per_token;
};

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  Config c{read_decoder(json, asked, {.max_positions = 4096 * 32, .rope = {.theta = 1e6}}), {}, 0};
  c.experts = {.experts = json.get_int("num_local_experts", 8, {1, ops::kMaxExperts}),
               .ffn = c.ffn_dim,
               .activation = c.activation,
               .gate = "w1",
               .up = "w3",
               .down = "w2"};
  c.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", 2, {1, c.experts.experts}));
  read_sliding_window(json, &c);
  return c;
}

class Mixtral : public PreNormDecoder<Config> {
 public:
  explicit Mixtral(Config config)
      : PreNormDecoder(std::move(config), {.ffn = "block_sparse_moe"}) {}

 private:
  Value feed_forward(const Scope& s, Value x, int64_t /*layer*/) const override {
    const Value logits = nn::router_logits(s["gate"], x, c_.experts.experts);
    const nn::Routing routing =
        nn::route({.experts_per_token = c_.experts_per_token, .normalise = true}, logits);
    return nn::gated_experts(s["experts"], x, routing, c_.experts);
  }
};

}  // namespace

Architecture model_mixtral() {
  return {.names = {"MixtralForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Mixtral, read_config>};
}

}  // namespace millrace::models
