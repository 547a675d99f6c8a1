// GPT-NeoX and Pythia: Q, K and V of a head side by side in one tensor, rotary positions on the
// first quarter of each head, two norms of the same input (parallel) or one after the other.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool parallel = true, attention_bias = true;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(
      json, window,
      {.activation = "gelu",
       .norm_eps_key = "layer_norm_eps",
       .rope = {.partial = 0.25, .theta_key = "rotary_emb_base", .partial_key = "rotary_pct"}})};
  c.parallel = json.get_bool("use_parallel_residual", true);
  c.attention_bias = json.get_bool("attention_bias", true);
  if (c.sizes.q() != c.dim || c.sizes.kv_heads != c.sizes.heads) {
    json.fail("num_attention_heads", "does not give heads of hidden_size in all",
              "GPT-NeoX has neither head_dim nor num_key_value_heads");
  }
  return c;
}

class GptNeox : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["gpt_neox"];
    Value x = nn::embedding(m["embed_in"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value a =
          attention(s["attention"], nn::layer_norm(s["input_layernorm"], x, c_.norm_eps),
                    {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value y = a + x;
      const Value h =
          nn::layer_norm(s["post_attention_layernorm"], c_.parallel ? x : y, c_.norm_eps);
      x = y + nn::mlp(s["mlp"], h, c_.ffn_dim, c_.activation, "dense_h_to_4h", "dense_4h_to_h");
    }
    x = nn::layer_norm(m["final_layer_norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_in"] : root["embed_out"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::grouped_qkv(s["query_key_value"], x, c_.sizes, c_.attention_bias);
    s.enter();
    const Value o = nn::attention(attention_attrs(in.layer), q, k, v, in);
    return nn::linear(s["dense"], o, c_.dim, c_.attention_bias);
  }
};

}  // namespace

Architecture model_gpt_neox() {
  return {.names = {"GPTNeoXForCausalLM"},
          .ignored_tensors =
              {R"(gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq))",
               R"(embed_out\.weight)"},
          .create = make_model<GptNeox, read_config>};
}

}  // namespace millrace::models
