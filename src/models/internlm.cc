// InternLM 1: Llama with biases in attention. InternLM 2: the same under other tensor names, with
// Q, K and V of each KV head side by side in one tensor.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Names {
  const char *embedding, *head, *attention_norm, *attention, *out, *ffn_norm, *ffn;
  nn::GatedMlpNames mlp;
};

constexpr Names kFirst = {"embed_tokens", "lm_head", "input_layernorm",
                          "self_attn",    "o_proj",  "post_attention_layernorm",
                          "mlp",          {}};
constexpr Names kSecond = {"tok_embeddings", "output",       "attention_norm",  "attention", "wo",
                           "ffn_norm",       "feed_forward", {"w1", "w3", "w2"}};

struct Config : DecoderConfig {
  bool bias = true, second = false;
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
  c.bias = json.get_bool("bias", true);
  c.second = json.architecture() == "InternLM2ForCausalLM";
  if (!c.second) read_rotary(json, &c);
  return c;
}

class InternLm : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Names& names = c_.second ? kSecond : kFirst;
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m[names.embedding], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + attention(s[names.attention], nn::rms_norm(s[names.attention_norm], x, c_.norm_eps),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value h = nn::rms_norm(s[names.ffn_norm], x, c_.norm_eps);
      x = x + nn::gated_mlp(s[names.ffn], h, c_.ffn_dim, c_.activation, false, names.mlp);
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m[names.embedding] : root[names.head], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = c_.second ? nn::grouped_qkv(s["wqkv"], x, c_.sizes, c_.bias)
                                     : nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s[(c_.second ? kSecond : kFirst).out], o, c_.dim, c_.bias);
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
