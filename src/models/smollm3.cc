// SmolLM3: Llama, some of whose layers have no positions, and may look back through a window.
#include "base/str.h"
#include "models/decoder_model_common.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool bias = false, mlp_bias = false;
  std::vector<bool> rotated = {};  // whether the layer has rotary positions
};

// `no_rope_layers` has 1 for each layer that is rotated; without it every layer is but those whose
// number, from 1, is a multiple of `no_rope_layer_interval`.
std::vector<bool> read_rotated(const HfConfig& json, int64_t layers) {
  const std::vector<int64_t> flags = json.get_ints("no_rope_layers", {0, 1});
  if (json.has("no_rope_layers") && flags.size() != static_cast<size_t>(layers)) {
    json.fail("no_rope_layers", str("has ", flags.size(), " entries for ", layers, " layers"));
  }
  const int64_t interval = json.get_int("no_rope_layer_interval", 4);
  std::vector<bool> rotated;
  for (int64_t i = 0; i < layers; ++i)
    rotated.push_back(flags.empty() ? (i + 1) % interval != 0 : flags[static_cast<size_t>(i)] != 0);
  return rotated;
}

Config read_config(const HfConfig& json, const WindowOptions& window) {
  Config c{read_decoder(json, window,
                        {.norm_eps = 1e-6,
                         .max_positions = 32768,
                         .tied = true,
                         .kv_heads = 4,
                         .rope = {.theta = 2000000}})};
  c.bias = json.get_bool("attention_bias", false);
  c.mlp_bias = json.get_bool("mlp_bias", false);
  c.rotated = read_rotated(json, c.layers);
  const bool slides = json.get_bool("use_sliding_window", false) && json.has("sliding_window");
  const std::vector<std::string> types = read_layer_types(json, c.layers, [&](int64_t layer) {
    return slides && !c.rotated[static_cast<size_t>(layer)] ? "sliding_attention"
                                                            : "full_attention";
  });
  c.windows = windows_by_layer_type(json, types, window);
  return c;
}

class SmolLm3 : public Decoder<Config> {
 public:
  using Decoder::Decoder;

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      const Value h = nn::rms_norm(s["input_layernorm"], x, c_.norm_eps);
      x = x + attention(s["self_attn"], h,
                        {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value g = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + nn::gated_mlp(s["mlp"], g, c_.ffn_dim, c_.activation, c_.mlp_bias);
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.rotated[static_cast<size_t>(in.layer)]) attrs.rotary_dim = 0;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }
};

}  // namespace

Architecture model_smollm3() {
  return {
      .names = {"SmolLM3ForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<SmolLm3>(read_config(config, window));
      }};
}

}  // namespace millrace::models
