// Generation of a static batch: set up once, decode many times.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "millrace/engine.h"
#include "millrace/sampling.h"

namespace millrace {

/// Maxima of a session: every buffer is allocated for them, once.
struct SetupOptions {
  int batch_size = 1;
  int max_context_length = 0;  // tokens of a prompt
  int max_new_tokens = 0;      // tokens after a prompt
  int max_encoder_length = 0;  // encoder-decoder models: rows that the encoder makes of an input
  int beam_width = 1;          // up to the engine's; batch_size counts requests
  int max_logprobs = 0;        // best tokens to report at a position
  bool contiguous_kv_cache = false;  // one block holds a whole sequence
  int tokens_per_block = 64;         // a power of two
  bool captured_graphs = true;       // on a GPU: steps alike are captured once and replayed
  bool padded = false;               // prompts laid out [batch, longest] instead of packed
  int64_t kv_memory = 0;             // bytes of the KV pool; 0: what the maxima need
};

struct GenerationRequest {
  std::vector<int32_t> input_ids;  // of encoder-decoder models, the encoder's
  SamplingParams sampling;
  // Encoder-decoder models only. What the decoder begins with; empty: its start token.
  std::vector<int32_t> decoder_input_ids = {};
  // Speech: frames [2 x rows, features], instead of input_ids.
  std::vector<float> input_features = {};
  /// Prompt tuning: embeddings [rows, width of the model] of virtual tokens, whose ids follow the
  /// vocabulary's. At most as many rows as EngineOptions::max_prompt_table_rows.
  std::vector<float> prompt_table = {};
};

enum class FinishReason { kNone, kStop, kLength };
/// "", "stop", "length".
const char* finish_reason_name(FinishReason reason);

/// A token, its log-probability and the best ones at its place, best first.
struct TokenScore {
  int32_t id = -1;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top;
};

/// A hypothesis of beam search.
struct BeamOutput {
  std::vector<int32_t> output_ids;  // new tokens, the one that ended it included
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int> stop_token_id = std::nullopt;
  float score = 0;  // sum of log-probabilities / length ^ length_penalty
};

/// With beams, tokens and reason are those of the best hypothesis, and come when the search is
/// over.
struct GenerationOutput {
  std::vector<int32_t> output_ids;  // new tokens, the one that ended it included
  FinishReason finish_reason = FinishReason::kNone;
  std::optional<int> stop_token_id;         // when a stop token (not an end token) ended it
  std::vector<TokenScore> logprobs;         // by new token, when asked for
  std::vector<TokenScore> prompt_logprobs;  // of prompt tokens 1, 2, ..., when asked for
  std::vector<BeamOutput> beams;            // num_return_sequences, or all there are; best first
  uint64_t seed = 0;                        // that was used, when it was sampled
  int reused_tokens = 0;  // of the prompt, whose keys and values were there already
};

/// What one step added to one sequence.
struct StepToken {
  int sequence = 0;  // index of the request
  int32_t id = -1;
  FinishReason finish_reason = FinishReason::kNone;
};

/// Logits of consecutive positions of one sequence: `position` is that of the first row's token.
using LogitsCallback =
    std::function<void(int sequence, int position, int rows, std::span<const float> logits)>;

/// Where a callback is: of which request, and how many new tokens the sequence has.
struct HookStep {
  int sequence = 0;
  int new_tokens = 0;
};

/// May change the logits [V] of which the next token is chosen, after all other processors; with
/// beams, the log-probabilities of one beam. `ids`: prompt and new tokens.
using LogitsProcessor =
    std::function<void(HookStep step, std::span<const int32_t> ids, std::span<float> logits)>;
/// Asked after each new token; true ends the sequence. Not with beams.
using StoppingCriteria = std::function<bool(HookStep step, std::span<const int32_t> ids)>;

struct DecodeOptions {
  LogitsCallback logits;       // gets the logits of every position that is computed
  bool prompt_logits = false;  // ... of all prompt positions too
  /// Sees every step on the host, which is waited for: steps no longer run ahead.
  LogitsProcessor logits_processor = nullptr;
  StoppingCriteria stopping_criteria = nullptr;
};

/// Where the time of a step went.
struct StepTimes {
  double total_s = 0;     // from its launch, or the end of the step before, to its results
  double device_s = 0;    // by the device's clock, from the first of its launches to the last
  double idle_s = 0;      // of the device, since the step before; 0 for the first of a decode
  double host_s = 0;      // spent on it by the host: choosing, launching, taking in
  int launches = 0;       // of operations and transfers
  bool replayed = false;  // by one call, as a captured graph
};

struct SessionStats {
  // Bytes, by purpose. `weights_mapped` are read in place from files and count as page cache.
  int64_t weights_copied = 0, weights_mapped = 0;
  int64_t activations = 0, kv_pool = 0, step_buffers = 0, token_history = 0, sampler = 0;
  int64_t prompt_table = 0;
  // By the GPU's own count, of the whole machine: what it has less of than before the weights were
  // loaded, at the end of setup() and now, with captured steps and what libraries hold. 0 on the
  // CPU.
  int64_t taken_by_setup = 0, taken = 0;
  double load_s = 0;  // reading the weights, by the first session of the engine
  int64_t kv_blocks = 0, kv_blocks_used_peak = 0;
  int64_t steps = 0;
  int64_t captures = 0;  // of steps, since setup
  bool runs_ahead = false;
  bool waits_for_host = false;        // in the last decode, for a logits processor
  std::vector<StepTimes> step_times;  // of the last decode
  /// What setup() allocated, as planned, the weights not counted.
  int64_t session_bytes() const {
    return activations + kv_pool + step_buffers + token_history + sampler + prompt_table;
  }
};

class GenerationSession;

/// A generator over the steps of a decode. Abandoning it leaves the session usable.
class DecodeStream {
 public:
  /// Runs one step and returns what it added; nothing when all sequences have ended. When it
  /// throws, they have ended, and the session stays usable.
  std::optional<std::vector<StepToken>> next();
  /// Ends a sequence: the caller found a stop text.
  void finish(int sequence);
  /// All outputs so far, by request.
  const std::vector<GenerationOutput>& outputs() const;

 private:
  friend class GenerationSession;
  explicit DecodeStream(GenerationSession& session) : session_(&session) {}
  GenerationSession* session_;
};

/// THREAD: one at a time.
class GenerationSession {
 public:
  explicit GenerationSession(std::shared_ptr<Engine> engine);
  ~GenerationSession();
  GenerationSession(const GenerationSession&) = delete;
  GenerationSession& operator=(const GenerationSession&) = delete;

  /// Allocates every buffer for these maxima; the engine's first session loads its weights, too.
  /// May be called again with others. Throws Error when they exceed the engine's limits, or the
  /// memory with the weights, before anything is read or allocated.
  void setup(const SetupOptions& options);

  /// The largest batch_size, up to that of `options` and the engine's limit, whose buffers fit into
  /// what is free now, and its KV cache into `kv_memory`; at least 1. What setup() allocated before
  /// is not free.
  int batch_that_fits(const SetupOptions& options) const;

  /// Generates until every sequence has ended. Batches and lengths may be anything up to the
  /// maxima; a prompt that begins like one served before computes only what is new. REQUIRES:
  /// setup(). Throws Error on a bad request before anything runs.
  std::vector<GenerationOutput> decode(const std::vector<GenerationRequest>& requests,
                                       const DecodeOptions& options = {});
  /// The same, step by step.
  DecodeStream decode_stream(const std::vector<GenerationRequest>& requests,
                             const DecodeOptions& options = {});

  SessionStats stats() const;
  const Engine& engine() const { return *engine_; }

 private:
  friend class DecodeStream;
  struct State;

  std::vector<GenerationOutput> decode_regular();
  /// Launches a step, and takes in the results of one that is due. False when nothing is left to
  /// do.
  bool handle_per_step();

  std::shared_ptr<Engine> engine_;
  std::unique_ptr<State> state_;
};

}  // namespace millrace
