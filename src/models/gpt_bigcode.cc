// GPT-BigCode (SantaCoder, StarCoder): GPT-2 with ordinary linear layers and, usually, one head of
// K and V for all of Q.
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool multi_query = true, scale_by_head_size = true;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  if (json.get_bool("add_cross_attention", false)) {
    json.fail("add_cross_attention", "is not supported for GPT-BigCode",
              "use a decoder-only checkpoint");
  }
  Config c{read_gpt_decoder(json, window, "gelu_pytorch_tanh", true)};
  c.multi_query = json.get_bool("multi_query", true);
  c.scale_by_head_size = json.get_bool("scale_attn_weights", true);
  if (c.multi_query) c.sizes.kv_heads = 1;
  return c;
}

class GptBigCode : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace);
    // Checkpoints saved from the bare model lack the prefix.
    const Scope m = root.has("wte.weight") ? root : root["transformer"];
    Value x = nn::embedding(m["wte"], step.input_ids, c_.vocab, c_.dim) +
              nn::embedding(m["wpe"], step.position_ids, c_.max_positions, c_.dim);  // [T, dim]
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["h"][i];
      x = x + attention(s["attn"], nn::layer_norm(s["ln_1"], x, c_.norm_eps),
                        {.step = step, .layer = static_cast<int>(i)});
      x = x + nn::mlp(s["mlp"], nn::layer_norm(s["ln_2"], x, c_.norm_eps), c_.ffn_dim,
                      c_.activation, "c_fc", "c_proj");
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    // With as many heads of K and V as of Q, those of a head lie side by side.
    const auto [q, k, v] =
        c_.multi_query ? nn::split_qkv(nn::linear(s["c_attn"], x, c_.sizes.all(), true), c_.sizes)
                       : nn::grouped_qkv(s["c_attn"], x, c_.sizes, true);
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.scale_by_head_size) attrs.scale = 1;
    s.enter();
    return nn::linear(s["c_proj"], nn::attention(attrs, q, k, v, in), c_.dim, true);
  }
};

}  // namespace

Architecture model_gpt_bigcode() {
  return {.names = {"GPTBigCodeForCausalLM"},
          .ignored_tensors = {R"((transformer\.)?(h\.\d+\.attn\.(masked_)?)?bias)",
                              R"(lm_head\.weight)"},
          .create = make_model<GptBigCode, read_config>};
}

}  // namespace millrace::models
