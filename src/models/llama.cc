// Llama 1 to 3, Mistral, Ministral, Qwen 2 and Qwen 3: pre-norm decoder, grouped-query attention
// with rotary positions, gated feed-forward. Qwen 2 has biases on Q, K and V only; Qwen 3
// normalises each head of Q and K; Mistral and Qwen may look back through a sliding window.
#include "base/str.h"
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool head_norm = false;
};

// Windows as transformers assigns them: `layer_types` where it is given; else Mistral's and
// Ministral's window holds for every layer and Qwen's, when switched on, from layer
// max_window_layers on.
std::vector<int> read_windows(const HfConfig& json, int64_t layers, const WindowOptions& asked) {
  std::vector<int> windows(static_cast<size_t>(layers), asked.window);
  const bool qwen = json.architecture().starts_with("Qwen");
  const bool mistral =
      json.architecture() == "MistralForCausalLM" || json.architecture() == "MinistralForCausalLM";
  const bool on = qwen ? json.get_bool("use_sliding_window", false) : mistral;
  if (!on || json.is_null("sliding_window")) return windows;
  const auto window = static_cast<int>(json.get_int("sliding_window", 4096));
  const std::vector<std::string> types = json.get_strings("layer_types");
  if (!types.empty() && types.size() != windows.size()) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  const int64_t first = qwen ? json.get_int("max_window_layers", 28, {0, 1 << 30}) : 0;
  for (int64_t i = 0; i < layers; ++i) {
    const auto layer = static_cast<size_t>(i);
    const bool slides = types.empty() ? i >= first : types[layer] == "sliding_attention";
    if (slides) windows[layer] = window;
  }
  return windows;
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const std::string name = json.architecture();
  const bool qwen3 = name == "Qwen3ForCausalLM";
  Config c{read_decoder(json, asked, {.norm_eps = 1e-6, .head_size = qwen3 ? 128 : 0})};
  c.biases = read_biases(json, true);
  if (name == "Qwen2ForCausalLM") c.biases = {.qkv = true, .ffn = c.biases.ffn};
  c.head_norm = qwen3;
  c.windows = read_windows(json, c.layers, asked);
  return c;
}

class Llama : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.qk_norm = c_.head_norm;
    attrs.qk_norm_eps = c_.norm_eps;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }
};

}  // namespace

Architecture model_llama() {
  return {.names = {"LlamaForCausalLM", "MistralForCausalLM", "MinistralForCausalLM",
                    "Qwen2ForCausalLM", "Qwen3ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<Llama, read_config>};
}

}  // namespace millrace::models
