// generation_config.json: how a model wants to be sampled when nobody says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/hf_config.h"

namespace millrace {

/// Empty optionals and lists: the file does not say.
struct GenerationDefaults {
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id, pad_token_id, decoder_start_token_id;

  std::optional<int64_t> max_new_tokens, max_length, min_new_tokens, min_length;

  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, typical_p;
  std::optional<int64_t> top_k;
  std::optional<double> repetition_penalty, encoder_repetition_penalty;
  std::optional<int64_t> no_repeat_ngram_size, encoder_no_repeat_ngram_size;

  std::vector<std::vector<int64_t>> bad_words_ids;
  std::vector<int64_t> suppress_tokens, begin_suppress_tokens;
  std::optional<int64_t> forced_bos_token_id;
  std::vector<int64_t> forced_eos_token_ids;

  std::optional<int64_t> num_beams, num_return_sequences;
  std::optional<double> length_penalty;
  std::optional<std::string> early_stopping;  // "true", "false" or "never"

  /// Keys of the file that mean something to transformers' generate() but nothing here, with a
  /// value that would change its output: for a warning.
  std::vector<std::string> unsupported;
};

/// Reads FOLDER/generation_config.json. Without that file the same keys are looked for in
/// config.json, where they were kept before, as transformers does.
GenerationDefaults load_generation_defaults(const std::string& folder, const HfConfig& config);

/// From an object with those keys.
GenerationDefaults read_generation_defaults(const HfConfig& config);

}  // namespace millrace
