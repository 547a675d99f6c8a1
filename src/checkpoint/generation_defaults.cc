#include "checkpoint/generation_defaults.h"

#include <filesystem>

namespace millrace {
namespace {

constexpr IntRange kCount = {0, 1LL << 40};
constexpr FloatRange kProbability = {0, 1};
constexpr FloatRange kNotNegative = {0, 1e308};

std::optional<int64_t> optional_int(const HfConfig& config, const char* key, IntRange range) {
  return config.has(key) ? std::optional(config.get_int(key, range)) : std::nullopt;
}

std::optional<double> optional_float(const HfConfig& config, const char* key, FloatRange range) {
  return config.has(key) ? std::optional(config.get_float(key, range)) : std::nullopt;
}

/// A token id; -1, which some files have, means none.
std::optional<int64_t> optional_token(const HfConfig& config, const char* key) {
  const auto id = optional_int(config, key, {-1, kTokenId.max});
  return id == -1 ? std::nullopt : id;
}

/// One id or a list of them.
std::vector<int64_t> token_list(const HfConfig& config, const char* key) {
  if (config.is_list(key)) return config.get_ints(key, kTokenId);
  const auto id = optional_token(config, key);
  return id ? std::vector{*id} : std::vector<int64_t>{};
}

std::optional<std::string> read_early_stopping(const HfConfig& config) {
  if (!config.has("early_stopping")) return std::nullopt;
  if (config.is_string("early_stopping")) {
    if (config.get_string("early_stopping") == "never") return "never";
    config.fail("early_stopping", "is neither true nor false nor \"never\"");
  }
  return config.get_bool("early_stopping", false) ? "true" : "false";
}

/// What would change the output of generate() and is not here: key and the value that changes
/// nothing.
std::vector<std::string> find_unsupported(const HfConfig& config) {
  std::vector<std::string> out;
  const auto add_unless = [&](const char* key, double neutral) {
    if (config.has(key) && config.get_float(key) != neutral) out.emplace_back(key);
  };
  add_unless("num_beam_groups", 1);
  add_unless("diversity_penalty", 0);
  add_unless("epsilon_cutoff", 0);
  add_unless("eta_cutoff", 0);
  add_unless("guidance_scale", 1);
  add_unless("penalty_alpha", 0);
  for (const char* key : {"sequence_bias", "exponential_decay_length_penalty", "forced_decoder_ids",
                          "watermarking_config", "constraints", "force_words_ids", "top_h",
                          "dola_layers", "stop_strings", "max_time"}) {
    if (config.has(key)) out.emplace_back(key);
  }
  for (const char* key : {"renormalize_logits", "remove_invalid_values", "token_healing"}) {
    if (config.get_bool(key, false)) out.emplace_back(key);
  }
  return out;
}

}  // namespace

GenerationDefaults load_generation_defaults(const std::string& folder, const HfConfig& config) {
  namespace fs = std::filesystem;
  const fs::path path = fs::path(folder) / "generation_config.json";
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return read_generation_defaults(config);
  return read_generation_defaults(HfConfig::load_file(path.string()));
}

GenerationDefaults read_generation_defaults(const HfConfig& config) {
  GenerationDefaults out;
  out.eos_token_ids = token_list(config, "eos_token_id");
  out.bos_token_id = optional_token(config, "bos_token_id");
  out.pad_token_id = optional_token(config, "pad_token_id");
  out.decoder_start_token_id = optional_token(config, "decoder_start_token_id");
  out.max_new_tokens = optional_int(config, "max_new_tokens", kCount);
  out.max_length = optional_int(config, "max_length", kCount);
  out.min_new_tokens = optional_int(config, "min_new_tokens", kCount);
  out.min_length = optional_int(config, "min_length", kCount);
  if (config.has("do_sample")) out.do_sample = config.get_bool("do_sample", false);
  out.temperature = optional_float(config, "temperature", kNotNegative);
  out.top_k = optional_int(config, "top_k", kCount);
  out.top_p = optional_float(config, "top_p", kProbability);
  out.min_p = optional_float(config, "min_p", kProbability);
  out.typical_p = optional_float(config, "typical_p", kProbability);
  out.repetition_penalty = optional_float(config, "repetition_penalty", kPositive);
  out.encoder_repetition_penalty = optional_float(config, "encoder_repetition_penalty", kPositive);
  out.no_repeat_ngram_size = optional_int(config, "no_repeat_ngram_size", kCount);
  out.encoder_no_repeat_ngram_size = optional_int(config, "encoder_no_repeat_ngram_size", kCount);
  out.bad_words_ids = config.get_int_lists("bad_words_ids", kTokenId);
  out.suppress_tokens = config.get_ints("suppress_tokens", kTokenId);
  out.begin_suppress_tokens = config.get_ints("begin_suppress_tokens", kTokenId);
  out.forced_bos_token_id = optional_token(config, "forced_bos_token_id");
  out.forced_eos_token_ids = token_list(config, "forced_eos_token_id");
  out.num_beams = optional_int(config, "num_beams", {1, 1 << 16});
  out.num_return_sequences = optional_int(config, "num_return_sequences", {1, 1 << 16});
  out.length_penalty = optional_float(config, "length_penalty", kAnyFloat);
  out.early_stopping = read_early_stopping(config);
  out.unsupported = find_unsupported(config);
  return out;
}

}  // namespace millrace
