#include "base/dummy_weights.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace millrace {
namespace {

constexpr double kPeakedGain = 1.7;  // on both sides: attention scores with a deviation of 1.7^2
constexpr double kHeadGain = 2;      // logits with a deviation of 2

// Leaves (the module's own name, before ".weight") that are not scaled by 1 / sqrt(fan_in) alone.
constexpr std::array<std::string_view, 14> kQueryKeyLeaves = {
    "q_proj", "k_proj", "qkv_proj", "c_attn", "q_attn",   "query_key_value",    "wqkv",
    "Wqkv",   "W_pack", "query",    "key",    "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"};
constexpr std::array<std::string_view, 2> kUnscaledQueryKeyLeaves = {"q", "k"};
constexpr std::array<std::string_view, 14> kTableLeaves = {"embed_tokens",
                                                           "tok_embeddings",
                                                           "wte",
                                                           "wpe",
                                                           "word_embeddings",
                                                           "position_embeddings",
                                                           "token_type_embeddings",
                                                           "shared",
                                                           "embed_in",
                                                           "embed_positions",
                                                           "lm_head",
                                                           "embed_out",
                                                           "output_layer",
                                                           "output"};
// Stored [in, out] by GPT-2, [out, in] by others under the same names; `in` is the smaller one.
constexpr std::array<std::string_view, 3> kWideningLeaves = {"c_attn", "c_fc", "q_attn"};

template <size_t N>
bool is_one_of(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

std::string_view last_component(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text)
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return hash;
}

double fan_in(std::string_view name, std::string_view leaf, std::span<const int64_t> shape) {
  if (shape.size() == 2 && is_one_of(leaf, kWideningLeaves)) {
    return static_cast<double>(std::min(shape[0], shape[1]));
  }
  if (shape.size() == 2 && leaf == "c_proj") return static_cast<double>(shape[0]);
  if (shape.size() == 3 && name.find("experts") != std::string_view::npos) {
    return static_cast<double>(shape[2]);
  }
  double product = 1;
  for (const int64_t size : shape.subspan(1))
    product *= static_cast<double>(size);
  return product;
}

/// `q_norm.weight`, `q_layernorm.weight`, or one of a list of them (`q_layernorm.norms.0.weight`).
bool is_norm_of_heads(std::string_view name) {
  for (const std::string_view word : {".q_norm.", ".k_norm.", ".q_layernorm.", ".k_layernorm."}) {
    if (name.find(word) != std::string_view::npos) return true;
  }
  return false;
}

struct Distribution {
  double center;
  double amplitude;  // values lie in [center - amplitude, center + amplitude)
};

Distribution distribution_of(std::string_view name, std::span<const int64_t> shape) {
  const std::string_view last = last_component(name);
  const bool is_weight = last == "weight";
  const std::string_view leaf = is_weight && name.size() > last.size()
                                    ? last_component(name.substr(0, name.size() - last.size() - 1))
                                    : last;
  if (last == "bias" || last.ends_with("_bias")) return {0, 0.5};
  if (leaf == "relative_attention_bias") return {0, 2};
  if (is_weight && is_norm_of_heads(name)) return {kPeakedGain, 0.4};
  if (shape.size() < 2) return is_weight ? Distribution{1, 0.25} : Distribution{0, 0.5};
  double gain = 1;
  if (is_one_of(leaf, kQueryKeyLeaves)) gain = kPeakedGain;
  if (is_one_of(leaf, kUnscaledQueryKeyLeaves)) gain = 0.6;
  if (is_one_of(leaf, kTableLeaves)) gain = kHeadGain;
  return {0, gain * std::sqrt(3 / fan_in(name, leaf, shape))};
}

}  // namespace

DummyTensor::DummyTensor(uint64_t seed, std::string_view name, std::span<const int64_t> shape)
    : key_(mix(fnv1a(name) ^ mix(seed))) {
  const Distribution distribution = distribution_of(name, shape);
  center_ = static_cast<float>(distribution.center);
  step_ = static_cast<float>(distribution.amplitude * 0x1p-23);
}

void DummyTensor::fill(int64_t begin, int64_t end, float* out) const {
  for (int64_t index = begin; index < end; ++index)
    out[index - begin] = at(index);
}

}  // namespace millrace
