// SmolLM3: Llama, some of whose layers have no positions, and may look back through a window.
#include "base/str.h"
#include "models/pre_norm_common.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
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
  c.biases = read_biases(json, true);
  c.rotated = read_rotated(json, c.layers);
  const bool slides = json.get_bool("use_sliding_window", false) && json.has("sliding_window");
  const std::vector<std::string> types = read_layer_types(json, c.layers, [&](int64_t layer) {
    return slides && !c.rotated[static_cast<size_t>(layer)] ? "sliding_attention"
                                                            : "full_attention";
  });
  c.windows = windows_by_layer_type(json, types, window);
  return c;
}

class SmolLm3 : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    ops::Attention attrs = attention_attrs(in.layer);
    if (!c_.rotated[static_cast<size_t>(in.layer)]) attrs.rotary_dim = 0;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }
};

}  // namespace

Architecture model_smollm3() {
  return {.names = {"SmolLM3ForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<SmolLm3, read_config>};
}

}  // namespace millrace::models
