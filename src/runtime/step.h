// One step of a batch, as plain host data: the contract between those who decide what runs
// (GenerationSession, the serving scheduler) and what runs it (runtime/stepper). Nothing here knows
// tensors.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "millrace/sampling.h"
#include "runtime/kv_blocks.h"

namespace millrace {

/// What the stepper keeps for a sequence while it lives in a slot.
struct SequenceOptions {
  SamplingParams sampling;
  int prompt_length = 0;
  int max_new_tokens = 0;  // where forced end tokens apply; 0: no limit
  uint64_t seed = 0;       // when sampling.seed is unset
  int output_index = 0;
  std::span<const float> prompt_table;  // [rows, width] of virtual tokens
  std::span<const int> end_token_ids;   // when sampling.end_token_ids is unset
};

/// One sequence's part of a step.
struct StepSequence {
  int slot = 0;  // row of the token history, below Stepper::max_sequences
  bool is_context =
      false;            // these are tokens of its prompt. Context sequences come first in a batch.
  int past_length = 0;  // tokens in the cache before this step
  /// The tokens to process, at positions past_length and up. Empty: one token, the one that was
  /// chosen at this position in an earlier step and that the host need not know yet.
  std::span<const int32_t> tokens;
  /// Blocks by group, covering past_length + the new tokens.
  std::span<const BlockList> blocks;
  bool sample = false;  // choose the token after these
  /// Logits of every row but the last are wanted too (prompt_logprobs, logits of a prompt);
  /// `targets` has the token that follows each of these rows.
  std::span<const int32_t> targets;

  /// Encoder-decoder models: how many rows the encoder makes of the sequence's input, in every
  /// step; and in its first step that input, as ids or as frames [2 x encoder_length, features].
  int encoder_length = 0;
  std::span<const int32_t> encoder_ids = {};
  std::span<const float> encoder_features = {};

  int num_tokens() const { return tokens.empty() ? 1 : static_cast<int>(tokens.size()); }
};

/// Logits of consecutive rows of one sequence, on the host, valid during the call.
struct LogitsRows {
  int sequence = 0;   // index in the batch
  int first_row = 0;  // of the sequence's rows in this step
  int rows = 0;
  std::span<const float> logits;  // [rows, vocabulary]
};

struct Batch {
  std::vector<StepSequence> sequences;
  int logprobs =
      -1;  // best ones to report for each chosen token and target; -1: no log-probabilities
  /// Above 1: sequences that sample are beams of requests, whose slots are consecutive and begin at
  /// a multiple of `beams`. A request's prompt is one sequence, in its first slot; afterwards its
  /// beams are consecutive sequences of the batch. The device chooses each beam's past.
  int beams = 1;
  bool padded = false;  // rows laid out [sequences, longest] instead of packed
  std::function<void(const LogitsRows&)> logits_sink;  // gets every row of logits that is computed
  /// May change the row [V] of which a sequence's next token is chosen (with beams, of
  /// log-probabilities); `sequence` is the index in the batch. The device waits for it.
  std::function<void(int sequence, std::span<float> row)> logits_processor;
};

/// A token and what is known about it.
struct TokenLogprobs {
  int32_t id = -1;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;  // best first
};

/// What beam search chose for a request: [2K] each, first the beams of the next step, then the best
/// continuations of all (ops/beam_step/beam_step.h).
struct BeamChoices {
  std::vector<float> scores;  // sums of log-probabilities
  std::vector<int32_t> parents, tokens;
};

struct StepResult {
  /// By batch index; id -1 where nothing was sampled. Log-probabilities only when the batch asked
  /// for them.
  std::vector<TokenLogprobs> chosen;
  std::vector<std::vector<TokenLogprobs>> targets;  // by batch index, then row
  std::vector<BeamChoices> beams;  // with beams, by batch index of a request's first sequence
  /// Batch indices of sequences whose logits were not numbers or left no token to choose.
  std::vector<int> failed_sequences;
  double seconds = 0;  // from launch to results
  /// By the clock of the device: from the step's first launch to its last, and between the step
  /// collected before and this one.
  double device_seconds = 0, idle_seconds = 0;
  int launches = 0;       // of operations and transfers
  bool replayed = false;  // as a captured graph
};

/// Runs steps. THREAD: one at a time.
class Stepper {
 public:
  virtual ~Stepper() = default;
  virtual int max_sequences() const = 0;
  virtual int max_num_tokens() const = 0;
  /// True when launch() returns before the step has run: one step may then be launched ahead of
  /// collect().
  virtual bool runs_ahead() const = 0;

  virtual void begin_sequence(int slot, const SequenceOptions& options) = 0;
  /// Starts a step. REQUIRES: at most one step launched and not collected. When it throws, there is
  /// no step to collect.
  virtual void launch(const Batch& batch) = 0;
  /// Waits for the oldest step that was launched. Throws Error when the device failed; the step is
  /// over then, too.
  virtual StepResult collect() = 0;
};

}  // namespace millrace
