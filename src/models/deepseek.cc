// DeepSeek V2 and V3: latent attention; after some dense layers, routed experts beside shared ones.
// V2 scores experts by softmax, V3 by sigmoid with a bias that only chooses; both may choose within
// the best groups of experts.
#include <cmath>

#include "base/error.h"
#include "base/str.h"
#include "models/pre_norm_common.h"
#include "nn/experts.h"
#include "nn/latent_attention.h"

namespace millrace::models {
namespace {

using nn::Scope;
using nn::Value;

struct Config : DecoderConfig {
  int64_t dense_layers;
  int64_t q_rank;  // 0: queries are not made from a latent
  ops::MlaAttention latent;
  bool interleaved;
  nn::GatedExperts experts;
  int64_t shared_ffn_dim;
  ops::MoeRoute route;
};

// Only these values have a meaning that checkpoints use.
void expect_string(const HfConfig& json, const char* key, const char* wanted) {
  const std::string value = json.get_string(key, wanted);
  if (value != wanted) {
    json.fail(key, str("is '", value, "', which is not supported"), str("supported is ", wanted));
  }
}

void read_groups(const HfConfig& json, int64_t experts, ops::MoeRoute* route) {
  route->groups = static_cast<int>(json.get_int("n_group", 1, {1, ops::kMaxExpertGroups}));
  route->kept_groups = static_cast<int>(json.get_int("topk_group", 1, {1, route->groups}));
  if (experts % route->groups != 0) {
    json.fail("n_group",
              str("is ", route->groups, ", which does not divide n_routed_experts ", experts));
  }
  if (route->kept_groups * (experts / route->groups) < route->experts_per_token) {
    json.fail("topk_group", str("leaves fewer experts than num_experts_per_tok"));
  }
}

ops::MoeRoute read_route(const HfConfig& json, bool v3, int64_t experts) {
  ops::MoeRoute route;
  const IntRange some = {1, experts};
  route.experts_per_token = static_cast<int>(v3 ? json.get_int("num_experts_per_tok", 8, some)
                                                : json.get_int("num_experts_per_tok", some));
  route.scale = json.get_float("routed_scaling_factor", v3 ? 2.5 : 1, kPositive);
  expect_string(json, "scoring_func", v3 ? "sigmoid" : "softmax");
  if (v3) {
    expect_string(json, "topk_method", "noaux_tc");
    route.scores = "sigmoid";
    route.bias = true;
    route.normalise = json.get_bool("norm_topk_prob", true);
    read_groups(json, experts, &route);
    route.group_score = "top2";
    if (experts / route.groups < 2) json.fail("n_group", "leaves groups of one expert");
    return route;
  }
  if (json.get_bool("norm_topk_prob", false)) {
    json.fail("norm_topk_prob", "is true, which is not supported for DeepSeek V2");
  }
  const std::string method = json.get_string("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    read_groups(json, experts, &route);
  } else if (method != "greedy") {
    json.fail("topk_method", str("is '", method, "', which is not supported"),
              "supported are greedy and group_limited_greedy");
  } else {
    json.ignore("n_group");
    json.ignore("topk_group");
  }
  return route;
}

// 1 / sqrt(Dn + R), and with YaRN the square of what it multiplies attention by.
double read_scale(const ops::RopeAngles& rope, int64_t head_size) {
  const double scale = 1 / std::sqrt(static_cast<double>(head_size));
  if (rope.rule == "default" || rope.mscale_all_dim == 0 || rope.factor <= 1) return scale;
  const double mscale = 0.1 * rope.mscale_all_dim * std::log(rope.factor) + 1;
  return scale * mscale * mscale;
}

ops::MlaAttention read_attention(const HfConfig& json, const ops::RopeAngles& rope) {
  const int64_t heads = json.get_int("num_attention_heads");
  if (json.get_int("num_key_value_heads", heads) != heads) {
    json.fail("num_key_value_heads", str("is not num_attention_heads ", heads),
              "latent attention has as many key heads as query heads");
  }
  ops::MlaAttention a{.heads = static_cast<int>(heads),
                      .nope_size = static_cast<int>(json.get_int("qk_nope_head_dim", 128)),
                      .rope_size = rope.rotary_dim,
                      .latent_size = static_cast<int>(json.get_int("kv_lora_rank", 512)),
                      .v_size = static_cast<int>(json.get_int("v_head_dim", 128))};
  a.scale = read_scale(rope, int64_t{a.nope_size} + a.rope_size);
  return a;
}

Config read_config(const HfConfig& json, const WindowOptions& asked) {
  const bool v3 = json.architecture() == "DeepseekV3ForCausalLM";
  if (asked.window > 0) {
    throw_bad_input("an attention window is not supported by latent attention", json.architecture(),
                    "leave --attention-window out");
  }
  if (json.get_int("moe_layer_freq", 1) != 1) {
    json.fail("moe_layer_freq", "is not 1, which is not supported");
  }
  const ops::RopeAngles rope = rope_options(json, json.get_int("qk_rope_head_dim", 64));
  const std::string activation = read_activation(json, "hidden_act", "silu");
  const int64_t experts = json.get_int("n_routed_experts", v3 ? 256 : 64, {1, ops::kMaxExperts});
  const int64_t expert_ffn = json.get_int("moe_intermediate_size", v3 ? 2048 : 1407);
  Config c{{.dim = json.get_int("hidden_size"),
            .ffn_dim = json.get_int("intermediate_size"),
            .layers = json.get_int("num_hidden_layers"),
            .vocab = json.get_int("vocab_size"),
            .max_positions = json.get_int("max_position_embeddings", v3 ? 4096 : 2048),
            .norm_eps = json.get_float("rms_norm_eps", 1e-6, kPositive),
            .activation = activation,
            .tied = json.get_bool("tie_word_embeddings", false),
            .rope = rope,
            .biases = read_biases(json, !v3)},
           json.get_int("first_k_dense_replace", v3 ? 3 : 0, {0, 1 << 30}),
           json.is_null("q_lora_rank") ? 0 : json.get_int("q_lora_rank", 1536),
           read_attention(json, rope),
           !v3 || json.get_bool("rope_interleave", true),
           {.experts = experts, .ffn = expert_ffn, .activation = activation},
           expert_ffn * json.get_int("n_shared_experts", v3 ? 1 : 2),
           read_route(json, v3, experts)};
  return c;
}

class DeepSeek : public PreNormDecoder<Config> {
 public:
  using PreNormDecoder::PreNormDecoder;

  std::vector<KvLayer> kv_layers() const override {
    const int size = c_.latent.latent_size + c_.latent.rope_size;
    return std::vector<KvLayer>(static_cast<size_t>(c_.layers), {.kv_heads = 1, .k_size = size});
  }

 private:
  static constexpr double kLatentNormEps = 1e-6;  // whatever the config says of the others

  Value attention(const Scope& s, Value x, const nn::AttentionInputs& in) const override {
    const ops::MlaAttention& a = c_.latent;
    const int64_t q_size = int64_t{a.heads} * (a.nope_size + a.rope_size);
    Value q;  // [T, H*(Dn+R)]
    if (c_.q_rank == 0) {
      q = nn::linear(s["q_proj"], x, q_size);
    } else {
      const Value latent = nn::linear(s["q_a_proj"], x, c_.q_rank, c_.biases.qkv);
      q = nn::linear(s["q_b_proj"], nn::rms_norm(s["q_a_layernorm"], latent, kLatentNormEps),
                     q_size);
    }
    const Value kv = nn::linear(s["kv_a_proj_with_mqa"], x, a.latent_size + a.rope_size,
                                c_.biases.qkv);  // [T, C+R]
    const Value o = nn::latent_attention(s, a, q, kv, in, c_.interleaved, kLatentNormEps);
    return nn::linear(s["o_proj"], o, c_.dim, c_.biases.out);
  }

  Value feed_forward(const Scope& s, Value x, int64_t layer) const override {
    if (layer < c_.dense_layers) return PreNormDecoder::feed_forward(s, x, layer);
    const Value logits = nn::router_logits(s["gate"], x, c_.experts.experts);
    Value bias;
    if (c_.route.bias) {
      bias = s["gate"].weight("e_score_correction_bias", {c_.experts.experts});
    }
    const nn::Routing routing = nn::route(c_.route, logits, bias);
    const Value routed = nn::gated_experts(s["experts"], x, routing, c_.experts);
    return routed +
           nn::gated_mlp(s["shared_experts"], x, c_.shared_ffn_dim, c_.activation, c_.biases.ffn);
  }
};

}  // namespace

Architecture model_deepseek() {
  return {.names = {"DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"},
          // Layer 61 of V3 predicts further tokens.
          .ignored_tensors = {R"(model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq)",
                              R"(model\.layers\.61\..*)", R"(lm_head\.weight)"},
          .create = make_model<DeepSeek, read_config>};
}

}  // namespace millrace::models
