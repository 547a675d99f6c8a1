// Gemma (the first): Llama with embeddings times sqrt(dim), norms whose weights are stored minus 1,
// and GELU in the feed-forward.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "models/gemma_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.activation = "gelu_pytorch_tanh",
                         .norm_eps = 1e-6,
                         .max_positions = 8192,
                         .tied = true,
                         .head_size = 256,
                         .kv_heads = 16})};
  // The first checkpoints say gelu and mean the tanh approximation they were trained with.
  if (c.activation == "gelu") c.activation = "gelu_pytorch_tanh";
  if (json.get_string("hidden_activation", c.activation) != c.activation) {
    json.fail("hidden_activation", str("differs from hidden_act, ", c.activation));
  }
  if (json.get_bool("use_bidirectional_attention", false)) {
    json.fail("use_bidirectional_attention", "is not supported", "use a decoder checkpoint");
  }
  c.bias = json.get_bool("attention_bias", false);
  return c;
}

class Gemma : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = gemma_embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + attention(s["self_attn"], norm(s["input_layernorm"], x),
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      x = x + nn::gated_mlp(s["mlp"], norm(s["post_attention_layernorm"], x), c_.ffn_dim,
                            c_.activation);
    }
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], norm(m["norm"], x), c_.vocab);
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::rms_norm(s, x, c_.norm_eps, 1); }

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_gemma() {
  return {
      .names = {"GemmaForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Gemma>(read_config(config, window));
      }};
}

}  // namespace millrace::models
