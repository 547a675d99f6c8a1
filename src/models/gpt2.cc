// GPT-2: learned positions, LayerNorm, one product for Q, K and V, weights stored [in, out]
// (Conv1D).
#include "models/decoder_model_common.h"
#include "nn/layers.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool scale_by_head_size = true, scale_by_layer = false;
};

Config read_config(const HfConfig& json, const WindowOptions& window) {
  if (json.get_bool("add_cross_attention", false)) {
    json.fail("add_cross_attention", "is not supported for GPT-2", "use a decoder-only checkpoint");
  }
  Config c{read_gpt_decoder(json, window, "gelu_new", true)};
  c.scale_by_head_size = json.get_bool("scale_attn_weights", true);
  c.scale_by_layer = json.get_bool("scale_attn_by_inverse_layer_idx", false);
  return c;
}

class Gpt2 : public Decoder<Config> {
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
      x = x + feed_forward(s["mlp"], nn::layer_norm(s["ln_2"], x, c_.norm_eps));
    }
    x = nn::layer_norm(m["ln_f"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["wte"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const Value qkv = nn::conv1d(s["c_attn"], x, 3 * c_.dim);  // [T, 3 dim]
    s.enter();
    const auto [q, k, v] = nn::split_qkv(qkv, c_.sizes);
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.scale_by_head_size) attrs.scale = 1;
    if (c_.scale_by_layer) attrs.scale /= in.layer + 1;
    return nn::conv1d(s["c_proj"], nn::attention(attrs, q, k, v, in), c_.dim);
  }

  Value feed_forward(const Scope& s, Value x) const {
    const Value h = nn::activation(nn::conv1d(s["c_fc"], x, c_.ffn_dim), c_.activation);
    return nn::conv1d(s["c_proj"], h, c_.dim);
  }
};

}  // namespace

Architecture model_gpt2() {
  return {
      .names = {"GPT2LMHeadModel"},
      .ignored_tensors = {R"((transformer\.)?h\.\d+\.attn\.(masked_)?bias)", R"(lm_head\.weight)"},
      .create = make_model<Gpt2, read_config>};
}

}  // namespace millrace::models
