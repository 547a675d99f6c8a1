// InternLM 1: Llama with biases in attention. InternLM 2: the same under other tensor names, with
// Q, K and V of each KV head side by side in one tensor.
#include "base/str.h"
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr PreNormNames kSecond = {.embedding = "tok_embeddings",
                                  .attention_norm = "attention_norm",
                                  .attention = "attention",
                                  .ffn_norm = "ffn_norm",
                                  .ffn = "feed_forward",
                                  .head = "output"};

struct Config : DecoderConfig {
  bool second = false;
};

/// The first generation's `rotary`: {"base": B, "type": "origin" or "dynamic"}.
void read_rotary(const HfConfig& json, Config* c) {
  if (!json.has("rotary")) return;
  const HfConfig rotary = json.object("rotary");
  c->rope.theta = rotary.get_float("base", 10000.0, kPositive);
  const std::string type = rotary.get_string("type", "dynamic");
  if (type == "dynamic") {
    c->rope.rule = "dynamic";
    c->rope.factor = rotary.get_float("scaling_factor", 1.0, kPositive);
    c->rope.max_position = static_cast<double>(c->max_positions);
    c->max_positions = rope_positions(c->rope, c->max_positions);
  } else if (type != "origin") {
    rotary.fail("type", str("is '", type, "', which is not supported"),
                "supported are origin and dynamic");
  }
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window, {.norm_eps = 1e-6})};
  c.biases.qkv = c.biases.out = json.get_bool("bias", true);
  c.second = json.architecture() == "InternLM2ForCausalLM";
  if (!c.second) read_rotary(json, &c);
  return c;
}

class InternLm : public PreNormDecoder<Config> {
 public:
  explicit InternLm(const Config& config)
      : PreNormDecoder(config, config.second ? kSecond : PreNormNames{}) {}

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    if (!c_.second) return PreNormDecoder::attention(s, x, in);
    const auto [q, k, v] = nn::grouped_qkv(s["wqkv"], x, c_.sizes, c_.biases.qkv);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["wo"], o, c_.dim, c_.biases.out);
  }
  Value feed_forward(const Scope& s, Value x, int64_t layer) const override {
    if (!c_.second) return PreNormDecoder::feed_forward(s, x, layer);
    return nn::gated_mlp(s, x, c_.ffn_dim, c_.activation, false, {"w1", "w3", "w2"});
  }
};

}  // namespace

Architecture model_internlm() {
  return {.names = {"InternLMForCausalLM", "InternLM2ForCausalLM"},
          .ignored_tensors = {R"(model\.layers\.\d+\.(self_attn|attention)\.rotary_emb\.inv_freq)",
                              R"((lm_head|output)\.weight)"},
          .create = make_model<InternLm, read_config>};
}

}  // namespace millrace::models
