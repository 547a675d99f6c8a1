// Gemma 2 and Gemma 3 (text): norms before and behind both halves of a layer, sliding windows in
// most layers. Gemma 2 bends the logits of attention and of the head; Gemma 3 normalises each head
// of Q and K instead, and rotates by other angles where a window slides.
#include <cmath>

#include "models/decoder_common.h"
#include "models/rope_common.h"
#include "nn/attention_layer.h"
#include "nn/layers.h"
#include "nn/mlp.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

constexpr double kOne = 1;  // checkpoints hold the weights of norms minus 1

struct Config {
  int64_t dim, ffn_dim, vocab, max_positions;
  nn::QkvSizes sizes;
  double norm_eps, scale;
  double attention_cap, final_cap;  // 0: none
  std::string activation;
  bool tied, bias, head_norm;
  std::vector<std::string> types;  // of each layer: full_attention or sliding_attention
  std::vector<int> windows;
  int sink_tokens;
  ops::RopeAngles full_rope, sliding_rope;
};

/// `layer_types`, else every other layer slides, or for Gemma 3 all but every sixth.
std::vector<std::string> read_types(const HfConfig& json, bool gemma3) {
  std::vector<std::string> types = json.get_strings("layer_types");
  const int64_t layers = json.get_int("num_hidden_layers");
  const int64_t period = gemma3 ? json.get_int("sliding_window_pattern", 6) : 2;
  if (!types.empty() && static_cast<int64_t>(types.size()) != layers) {
    json.fail("layer_types", str("has ", types.size(), " entries for ", layers, " layers"));
  }
  for (auto i = static_cast<int64_t>(types.size()); i < layers; ++i)
    types.emplace_back((i + 1) % period == 0 ? "full_attention" : "sliding_attention");
  return types;
}

/// Where the parameters are not given by layer type, only full attention is scaled.
ops::RopeAngles read_sliding_rope(const HfConfig& json, int64_t head_size) {
  const bool by_type = json.is_object("rope_parameters") &&
                       json.object("rope_parameters").is_object("sliding_attention");
  if (by_type) return rope_options(json, head_size, {}, "sliding_attention");
  return {.rotary_dim = static_cast<int>(head_size),
          .theta = json.get_float("rope_local_base_freq", 10000, kPositive)};
}

/// A soft cap: absent means `otherwise`, null means none.
double read_cap(const HfConfig& json, std::string_view key, double otherwise) {
  return json.is_null(key) ? 0 : json.get_float(key, otherwise, {0, 1e308});
}

void refuse_others(const HfConfig& json, bool gemma3) {
  if (json.get_bool("use_bidirectional_attention", false)) {
    json.fail("use_bidirectional_attention", "is not supported", "use a causal checkpoint");
  }
  if (gemma3 && json.has("attn_logit_softcapping")) {
    json.fail("attn_logit_softcapping", "is not supported for Gemma 3");
  }
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const bool gemma3 = json.architecture() == "Gemma3ForCausalLM";
  refuse_others(json, gemma3);
  Config c{
      .dim = json.get_int("hidden_size"),
      .ffn_dim = json.get_int("intermediate_size"),
      .vocab = json.get_int("vocab_size"),
      .max_positions = json.get_int("max_position_embeddings", gemma3 ? 131072 : 8192),
      .sizes = read_heads(json, 256),
      .norm_eps = json.get_float("rms_norm_eps", 1e-6, kPositive),
      .scale = 1 / std::sqrt(json.get_float("query_pre_attn_scalar", 256, kPositive)),
      .attention_cap = gemma3 ? 0 : read_cap(json, "attn_logit_softcapping", 50),
      .final_cap = read_cap(json, "final_logit_softcapping", gemma3 ? 0 : 30),
      .activation = read_activation(json, "hidden_activation", "gelu_pytorch_tanh"),
      .tied = json.get_bool("tie_word_embeddings", true),
      .bias = json.get_bool("attention_bias", false),
      .head_norm = gemma3,
      .types = read_types(json, gemma3),
      .windows = {},
      .sink_tokens = asked.sink_tokens,
      .full_rope = {},
      .sliding_rope = {},
  };
  c.windows = windows_by_layer_type(json, c.types, asked);
  const int64_t size = c.sizes.head_size;
  c.full_rope = gemma3 ? rope_options(json, size, {.theta = 1e6}, "full_attention")
                       : rope_options(json, size);
  c.sliding_rope = gemma3 ? read_sliding_rope(json, size) : c.full_rope;
  return c;
}

class Gemma2 : public Model {
 public:
  explicit Gemma2(Config config) : c_(std::move(config)) {}

  int64_t vocab_size() const override { return c_.vocab; }
  int64_t max_positions() const override { return c_.max_positions; }

  std::vector<KvLayer> kv_layers() const override {
    return kv_layers_of(c_.sizes, c_.windows, c_.sink_tokens);
  }

  Value forward(nn::Trace& trace, const nn::StepInputs& step) const override {
    const Scope root(trace), m = root["model"];
    const Value e = nn::embedding(m["embed_tokens"], step.input_ids, c_.vocab, c_.dim);
    Value x = nn::scale(e, std::sqrt(static_cast<double>(c_.dim)));  // [T, dim]
    const Value full = nn::rope_angles(trace, step, c_.full_rope);
    const Value sliding =
        c_.sliding_rope == c_.full_rope ? full : nn::rope_angles(trace, step, c_.sliding_rope);
    for (size_t i = 0; i < c_.types.size(); ++i) {
      const Scope s = m["layers"][static_cast<int64_t>(i)];
      const Value angles = c_.types[i] == "full_attention" ? full : sliding;
      const Value h = norm(s["input_layernorm"], x);
      const Value a = attention(s["self_attn"], h, step, angles, i);
      x = x + norm(s["post_attention_layernorm"], a);
      const Value f = nn::gated_mlp(s["mlp"], norm(s["pre_feedforward_layernorm"], x), c_.ffn_dim,
                                    c_.activation);
      x = x + norm(s["post_feedforward_layernorm"], f);
    }
    x = norm(m["norm"], x);
    const Value logits = nn::logits(c_.tied ? m["embed_tokens"] : root["lm_head"], x, c_.vocab);
    return c_.final_cap > 0 ? nn::softcap(logits, c_.final_cap) : logits;
  }

 private:
  Value norm(const Scope& s, Value x) const { return nn::rms_norm(s, x, c_.norm_eps, kOne); }

  Value attention(const Scope& s, Value x, const nn::StepInputs& step, Value angles,
                  size_t layer) const {
    const auto [q, k, v] = nn::separate_qkv(s, x, c_.sizes, c_.bias);
    nn::AttentionInputs in{.step = step, .layer = static_cast<int>(layer), .angles = angles};
    if (c_.head_norm) {
      in.q_norm = s["q_norm"].weight("weight", {c_.sizes.head_size});
      in.k_norm = s["k_norm"].weight("weight", {c_.sizes.head_size});
    }
    ops::Attention attrs = attention_of(c_.sizes, c_.windows[layer], c_.sink_tokens);
    attrs.scale = c_.scale;
    attrs.softcap = c_.attention_cap;
    attrs.rotary_dim = static_cast<int>(c_.sizes.head_size);
    attrs.qk_norm = c_.head_norm;
    attrs.qk_norm_eps = c_.norm_eps;
    attrs.qk_norm_offset = c_.head_norm ? kOne : 0;
    s.enter();
    const Value o = nn::attention(attrs, q, k, v, in);
    return nn::linear(s["o_proj"], o, c_.dim, c_.bias);
  }

  Config c_;
};

}  // namespace

Architecture model_gemma2() {
  return {
      .names = {"Gemma2ForCausalLM", "Gemma3ForCausalLM"},
      .ignored_tensors = {R"(lm_head\.weight)"},
      .create = [](const HfConfig& config, const WindowOptions& window) -> std::unique_ptr<Model> {
        return std::make_unique<Gemma2>(read_config(config, window));
      }};
}

}  // namespace millrace::models
