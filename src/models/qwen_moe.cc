// Qwen2-MoE and Qwen3-MoE: Qwen 2 and 3 where some layers' feed-forward is a set of experts. Qwen 2
// adds a shared expert behind a sigmoid gate.
#include <algorithm>

#include "base/str.h"
#include "models/pre_norm_common.h"
#include "nn/experts.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  bool head_norm;
  std::vector<bool> sparse;  // which layers have experts
  nn::GatedExperts experts;
  int64_t shared_ffn_dim;  // 0: no shared expert
  ops::MoeRoute route;
};

// Qwen2-MoE slides in every second layer, the first included, up to max_window_layers; Qwen3-MoE
// in all layers or none.
std::vector<int> read_windows(const HfConfig& json, bool qwen3, int64_t layers,
                              const WindowOptions& asked) {
  std::vector<std::string> types = json.get_strings("layer_types");
  if (!types.empty() && static_cast<int64_t>(types.size()) != layers) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  const bool on = json.get_bool("use_sliding_window", false);
  const int64_t last = json.get_int("max_window_layers", 28, {0, 1 << 30});
  if (types.empty() || qwen3) {
    types.clear();
    for (int64_t i = 0; i < layers; ++i) {
      const bool slides = on && (qwen3 || (i % 2 == 0 && i < last));
      types.emplace_back(slides ? "sliding_attention" : "full_attention");
    }
  } else if (!on && std::count(types.begin(), types.end(), "sliding_attention") > 0) {
    json.fail("layer_types", "has sliding_attention while use_sliding_window is off");
  }
  return windows_by_layer_type(json, types, asked);
}

std::vector<bool> read_sparse(const HfConfig& json, int64_t layers) {
  const int64_t step = json.get_int("decoder_sparse_step", 1);
  std::vector<bool> sparse;
  for (int64_t i = 0; i < layers; ++i)
    sparse.push_back((i + 1) % step == 0);
  for (const int64_t layer : json.get_ints("mlp_only_layers")) {
    if (layer >= 0 && layer < layers) sparse[static_cast<size_t>(layer)] = false;
  }
  return sparse;
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const bool qwen3 = json.architecture() == "Qwen3MoeForCausalLM";
  const DecoderConfig base = read_decoder(
      json, asked, {.norm_eps = 1e-6, .ffn_dim = qwen3 ? 6144 : 5632, .max_positions = 32768});
  Config c{base,
           qwen3,
           read_sparse(json, base.layers),
           {.experts = json.get_int("num_experts", qwen3 ? 128 : 60, {1, ops::kMaxExperts}),
            .ffn = json.get_int("moe_intermediate_size", qwen3 ? 768 : 1408),
            .activation = base.activation},
           qwen3 ? 0 : json.get_int("shared_expert_intermediate_size", 5632),
           {}};
  c.biases = qwen3 ? read_biases(json) : Biases{.qkv = json.get_bool("qkv_bias", true)};
  c.windows = read_windows(json, qwen3, c.layers, asked);
  c.route.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", qwen3 ? 8 : 4, {1, c.experts.experts}));
  c.route.normalise = json.get_bool("norm_topk_prob", false);
  return c;
}

class QwenMoe : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

 private:
  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    ops::Attention attrs = attention_attrs(in.layer);
    attrs.qk_norm = c_.head_norm;
    if (c_.head_norm) attrs.qk_norm_eps = c_.norm_eps;
    return gqa_attention(s, x, attrs, c_.biases, in);
  }

  Value feed_forward(const Scope& s, Value x, int64_t layer) const override {
    if (!c_.sparse[static_cast<size_t>(layer)]) return PreNormDecoder::feed_forward(s, x, layer);
    const Value logits = nn::router_logits(s["gate"], x, c_.experts.experts);
    const Value routed =
        nn::gated_experts(s["experts"], x, nn::route(c_.route, logits), c_.experts);
    if (c_.shared_ffn_dim == 0) return routed;
    const Value shared = nn::gated_mlp(s["shared_expert"], x, c_.shared_ffn_dim, c_.activation);
    return routed + nn::sigmoid_gate(shared, nn::router_logits(s["shared_expert_gate"], x, 1));
  }
};

}  // namespace

Architecture model_qwen_moe() {
  return {.names = {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"},
          .ignored_tensors = usual_ignored_tensors(),
          .create = make_model<QwenMoe, read_config>};
}

}  // namespace millrace::models
