// The RoPE part of config.json. Where the parameters lie, and which of them wins, follows
// transformers 5 (standardize_rope_params): `rope_scaling` before `rope_parameters`, inner values
// before outer ones, but an outer original_max_position_embeddings before an inner one.
#include "base/str.h"
#include "checkpoint/hf_config.h"
#include "checkpoint/safetensors.h"

namespace millrace {
namespace {

/// The object with the parameters: nullopt when the file has none.
std::optional<HfConfig> find_parameters(const HfConfig& config, std::string_view layer_type,
                                        bool* is_nested) {
  *is_nested = false;
  const char* key = nullptr;
  for (const char* candidate : {"rope_scaling", "rope_parameters"}) {
    // An empty object counts as none.
    if (key == nullptr && config.has(candidate) &&
        !(config.is_object(candidate) && config.object(candidate).keys().empty())) {
      key = candidate;
    }
  }
  if (key == nullptr) return std::nullopt;
  if (key[5] == 's') config.ignore("rope_parameters");  // the same in new words, for newer readers
  HfConfig parameters = config.object(key);
  for (const std::string& inner : parameters.keys()) {
    *is_nested = *is_nested || parameters.is_object(inner);
  }
  if (!*is_nested) return parameters;
  if (layer_type.empty()) {
    config.fail(key, "differs by layer type, which this architecture does not know");
  }
  return parameters.object(layer_type);
}

std::string read_rule(const HfConfig& parameters) {
  // Both spellings are there in files that were written for old and new readers.
  const std::string old_spelling = parameters.get_string("type", "default");
  std::string rule = parameters.get_string("rope_type", old_spelling);
  if (rule == "su") rule = "longrope";  // its first name, in early Phi-3 files
  for (const char* known : {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}) {
    if (rule == known) return rule;
  }
  parameters.fail("rope_type", str("is ", quote_name(rule), ", which is not supported"),
                  "known are default, linear, dynamic, llama3, yarn and longrope");
}

void read_llama3(const HfConfig& parameters, RopeConfig* rope) {
  rope->low_freq_factor = parameters.get_float("low_freq_factor", kPositive);
  rope->high_freq_factor = parameters.get_float("high_freq_factor", kPositive);
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    parameters.fail("high_freq_factor", "is not larger than low_freq_factor");
  }
}

void read_yarn(const HfConfig& parameters, RopeConfig* rope) {
  constexpr FloatRange kNotNegative = {0, 1e308};
  const auto nonzero = [&](const char* key, double otherwise) {
    const double value = parameters.get_float(key, 0.0, kNotNegative);
    return value == 0 ? otherwise : value;
  };
  rope->beta_fast = nonzero("beta_fast", 32);
  rope->beta_slow = nonzero("beta_slow", 1);
  rope->mscale = parameters.get_float("mscale", 0.0, kNotNegative);
  rope->mscale_all_dim = parameters.get_float("mscale_all_dim", 0.0, kNotNegative);
  rope->truncate = parameters.get_bool("truncate", true);
  if (rope->theta == 1) parameters.fail("rope_theta", "is 1, which yarn cannot scale");
}

void read_longrope(const HfConfig& parameters, RopeConfig* rope) {
  rope->short_factor = parameters.get_floats("short_factor", kPositive);
  rope->long_factor = parameters.get_floats("long_factor", kPositive);
  for (const char* key : {"short_factor", "long_factor"}) {
    const auto& factors = key[0] == 's' ? rope->short_factor : rope->long_factor;
    if (static_cast<int64_t>(factors.size()) != rope->rotary_dim / 2) {
      parameters.fail(key, str("has ", factors.size(), " numbers instead of ", rope->rotary_dim / 2,
                               ", half the rotary dimension"));
    }
  }
}

/// factor, or for yarn and longrope the growth of the context where it is absent.
double read_factor(const HfConfig& parameters, const RopeConfig& rope) {
  const bool may_follow = rope.rule == "yarn" || rope.rule == "longrope";
  if (!may_follow || parameters.has("factor")) return parameters.get_float("factor", kPositive);
  if (rope.max_position == 0) parameters.fail("factor", "is missing");
  return rope.max_position / rope.original_max_position;
}

}  // namespace

RopeConfig read_rope_config(const HfConfig& config, int64_t head_dim, const RopeDefaults& defaults,
                            std::string_view layer_type) {
  RopeConfig rope;
  bool is_nested = false;
  const std::optional<HfConfig> parameters = find_parameters(config, layer_type, &is_nested);
  rope.theta = config.get_float(defaults.theta_key, defaults.theta, kPositive);
  constexpr FloatRange kShare = {1e-6, 1};
  double partial = config.get_float(defaults.partial_key, defaults.partial, kShare);
  if (parameters) {
    rope.rule = read_rule(*parameters);
    rope.theta = parameters->get_float("rope_theta", rope.theta, kPositive);
    partial = parameters->get_float("partial_rotary_factor", partial, kShare);
  }
  rope.rotary_dim = static_cast<int64_t>(static_cast<double>(head_dim) * partial);
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0) {
    config.fail("head_dim", str("of ", head_dim, " gives a rotary dimension of ", rope.rotary_dim,
                                "; it must be even and at least 2"));
  }
  rope.max_position =
      static_cast<double>(config.get_int("max_position_embeddings", int64_t{0}, kSize));
  if (!parameters || rope.rule == "default") return rope;

  if (rope.rule == "dynamic") {
    if (rope.max_position == 0) config.fail("max_position_embeddings", "is missing");
    if (rope.rotary_dim == 2) {
      parameters->fail("rope_type", "is dynamic, which needs a rotary dimension above 2");
    }
  } else if (rope.rule != "linear") {
    const char* key = "original_max_position_embeddings";
    const auto inner = parameters->get_int(key, static_cast<int64_t>(rope.max_position), kSize);
    const auto chosen = is_nested ? inner : config.get_int(key, inner, kSize);
    if (chosen == 0) parameters->fail(key, "is missing");
    if (chosen == 1) parameters->fail(key, "is 1, of which no rule can take the logarithm");
    rope.original_max_position = static_cast<double>(chosen);
    rope.attention_factor = parameters->get_float("attention_factor", 0.0, kPositive);
  }
  rope.factor = read_factor(*parameters, rope);
  if (rope.rule == "llama3") read_llama3(*parameters, &rope);
  if (rope.rule == "yarn") read_yarn(*parameters, &rope);
  if (rope.rule == "longrope") read_longrope(*parameters, &rope);
  return rope;
}

}  // namespace millrace
