// What a request may say about how its tokens are chosen. docs/sampling.md has the exact semantics
// and their order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace millrace {

/// When a beam search is over although running beams might still improve on what is finished.
/// kFalse: by a guess from the present length; kTrue: as soon as there are as many finished as
/// beams; kNever: only when no length can help.
enum class EarlyStopping { kFalse, kTrue, kNever };

/// Every field's default is neutral. Names and meanings are those of transformers'
/// GenerationConfig; presence and frequency penalties, logit bias and log-probabilities are
/// OpenAI's.
struct SamplingParams {
  /// False: the most probable token (greedy; the five fields below are then not looked at).
  bool do_sample = false;
  double temperature = 1.0;  // >= 0; below 1e-5 the choice is greedy
  int top_k = 0;             // the k most probable tokens; 0: all
  double top_p = 1.0;        // [0, 1]: the smallest set of tokens with at least this probability
  double min_p = 0.0;        // [0, 1]: relative to the most probable token
  double typical_p = 1.0;    // (0, 1]: tokens whose surprise is nearest to the entropy
  /// Of the generator. Unset: the caller draws one and reports it.
  std::optional<uint64_t> seed;

  double repetition_penalty = 1.0;                // > 0; prompt and new tokens
  double presence_penalty = 0.0;                  // [-2, 2]; new tokens
  double frequency_penalty = 0.0;                 // [-2, 2]; new tokens
  int no_repeat_ngram_size = 0;                   // 0: off; prompt and new tokens
  std::vector<std::pair<int, float>> logit_bias;  // token, [-100, 100]; each token once
  std::vector<std::vector<int>> bad_words;        // token sequences that are never completed
  std::vector<int> suppress_tokens;               // never
  std::vector<int> begin_suppress_tokens;         // not as the first new token
  /// The first token after a sequence of one token (the decoder start token).
  std::optional<int> forced_bos_token_id;
  std::vector<int> forced_eos_token_ids;  // one of these ends a sequence that reaches its limit

  /// Above 1: beam search, which excludes do_sample, logprobs and stop. All requests of a session
  /// have its beam width.
  int num_beams = 1;
  double length_penalty = 1.0;  // scores are divided by length ^ length_penalty
  EarlyStopping early_stopping = EarlyStopping::kFalse;
  int num_return_sequences = 1;  // up to num_beams; best first

  int min_new_tokens = 0;  // no end token and no stop token before
  /// Unset: the caller's default (generation_config.json), else until the context is full.
  std::optional<int> max_new_tokens;
  /// End tokens. Unset: the model's.
  std::optional<std::vector<int>> end_token_ids;
  bool ignore_eos = false;          // end tokens are ordinary ones
  std::vector<int> stop_token_ids;  // end a sequence too, and are reported as its stop reason
  /// End a sequence where its text contains one. Watched by whoever turns ids into text; the
  /// runtime, which has only ids, does not look at them.
  std::vector<std::string> stop;

  /// Log-probabilities of the new tokens and, at each position, of this many best ones; 0: of the
  /// new tokens alone.
  std::optional<int> logprobs;         // 0 to kMaxLogprobs
  std::optional<int> prompt_logprobs;  // the same for the prompt's tokens, from the second on

  static constexpr int kMaxLogprobs = 20;
  static constexpr int kMaxBeams = 64;

  /// Throws Error (kBadInput) naming the first field out of its range. `vocab_size` 0: ids are not
  /// compared with it.
  void validate(int64_t vocab_size = 0) const;
};

}  // namespace millrace
