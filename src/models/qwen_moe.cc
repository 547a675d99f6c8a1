// Qwen2-MoE and Qwen3-MoE: Qwen 2 and 3 where some layers' feed-forward is a set of experts. Qwen 2
// adds a shared expert behind a sigmoid gate.
#include <algorithm>

#include "base/str.h"
#include "models/gqa_common.h"
#include "models/rope_common.h"
#include "nn/experts.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config {
  int64_t dim, ffn_dim, layers, vocab, max_positions;
  nn::QkvSizes sizes;
  double norm_eps;
  std::string activation;
  bool tied, qkv_bias, out_bias, head_norm;
  std::vector<int> windows;  // of each layer; 0: none
  int sink_tokens;
  std::vector<bool> sparse;  // which layers have experts
  nn::GatedExperts experts;
  int64_t shared_ffn_dim;  // 0: no shared expert
  ops::MoeRoute route;
  ops::RopeAngles rope;
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
  const int64_t layers = json.get_int("num_hidden_layers");
  const std::string activation = read_activation(json, "hidden_act", "silu");
  Config c{
      .dim = json.get_int("hidden_size"),
      .ffn_dim = json.get_int("intermediate_size", qwen3 ? 6144 : 5632),
      .layers = layers,
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", 32768),
      .sizes = read_heads(json),
      .norm_eps = json.get_float("rms_norm_eps", 1e-6, kPositive),
      .activation = activation,
      .tied = json.get_bool("tie_word_embeddings", false),
      .qkv_bias = qwen3 ? json.get_bool("attention_bias", false) : json.get_bool("qkv_bias", true),
      .out_bias = qwen3 && json.get_bool("attention_bias", false),
      .head_norm = qwen3,
      .windows = read_windows(json, qwen3, layers, asked),
      .sink_tokens = asked.sink_tokens,
      .sparse = read_sparse(json, layers),
      .experts = {.experts = json.get_int("num_experts", qwen3 ? 128 : 60, {1, ops::kMaxExperts}),
                  .ffn = json.get_int("moe_intermediate_size", qwen3 ? 768 : 1408),
                  .activation = activation},
      .shared_ffn_dim = qwen3 ? 0 : json.get_int("shared_expert_intermediate_size", 5632),
      .route = {},
      .rope = {},
  };
  c.route.experts_per_token =
      static_cast<int>(json.get_int("num_experts_per_tok", qwen3 ? 8 : 4, {1, c.experts.experts}));
  c.route.normalise = json.get_bool("norm_topk_prob", false);
  c.rope = rope_options(json, c.sizes.head_size);
  return c;
}

class QwenMoe : public Model {
 public:
  explicit QwenMoe(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.max_positions; }

  std::vector<KvLayer> kv_layers() const override {
    return kv_layers_of(c_.sizes, c_.windows, c_.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    Value x = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);  // [T, dim]
    const Value angles = nn::rope_angles(trace, step, c_.rope);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const Scope s = m["layers"][i];
      x = x + gqa_attention(s["self_attn"], nn::rms_norm(s["input_layernorm"], x, c_.norm_eps),
                            attention_layer(i),
                            {.step = step, .layer = static_cast<int>(i), .angles = angles});
      const Value h = nn::rms_norm(s["post_attention_layernorm"], x, c_.norm_eps);
      x = x + (c_.sparse[static_cast<size_t>(i)]
                   ? experts(s["mlp"], h)
                   : nn::gated_mlp(s["mlp"], h, c_.ffn_dim, c_.activation));
    }
    x = nn::rms_norm(m["norm"], x, c_.norm_eps);
    return nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
  }

 private:
  GqaLayer attention_layer(int64_t layer) const {
    return {.sizes = c_.sizes,
            .rotary_dim = c_.rope.rotary_dim,
            .window = c_.windows[static_cast<size_t>(layer)],
            .sink_tokens = c_.sink_tokens,
            .qkv_bias = c_.qkv_bias,
            .out_bias = c_.out_bias,
            .head_norm = c_.head_norm,
            .norm_eps = c_.norm_eps};
  }

  Value experts(const Scope& s, Value x) const {
    const Value logits = nn::router_logits(s["gate"], x, c_.experts.experts);
    const Value routed =
        nn::gated_experts(s["experts"], x, nn::route(c_.route, logits), c_.experts);
    if (c_.shared_ffn_dim == 0) return routed;
    const Value shared = nn::gated_mlp(s["shared_expert"], x, c_.shared_ffn_dim, c_.activation);
    return routed + nn::sigmoid_gate(shared, nn::router_logits(s["shared_expert_gate"], x, 1));
  }

  Config c_;
};

}  // namespace

Architecture model_qwen_moe() {
  return {
      .names = {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"},
      .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                          R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<QwenMoe>(read_config(config, window));
      }};
}

}  // namespace millrace::models
