// The sequences of one decode: where each stands, which blocks it holds, what the next step of the
// batch is. The parts: decode_checks.cc, decode_blocks.cc, decode_steps.cc, decode_results.cc; the
// life of a sequence is in decode_batch.cc.
#pragma once

#include <memory>
#include <vector>

#include "engine/plan.h"
#include "millrace/generation_session.h"
#include "ops/common/rope_frequencies.h"
#include "runtime/beam_search.h"
#include "runtime/encoder_input.h"
#include "runtime/kv_blocks.h"
#include "runtime/step.h"

namespace millrace::runtime {

/// What a session fixes at setup.
struct SessionLimits {
  int batch_size = 0;  // requests
  int beams = 1;       // of each
  int max_context_length = 0;
  int max_new_tokens = 0;
  int max_seq_len = 0;     // of a sequence, prompt and new tokens
  int max_num_tokens = 0;  // of a step
  int max_logprobs = 0;
  int vocab_size = 0;
  int prompt_table_rows = 0, prompt_table_width = 0;
  bool padded = false;
  EncoderLimits encoder = {};
};

class DecodeBatch {
 public:
  /// `blocks` by group, with the groups' windows in `groups`. `ropes`: scaling rules of the model,
  /// for those whose frequencies depend on the prompt's length.
  DecodeBatch(const SessionLimits& limits, const std::vector<engine::KvGroup>& groups,
              std::vector<KvBlocks> blocks, std::vector<ops::RopeScaling> ropes);

  /// Takes on new requests, each in the slot whose cache shares the longest prefix. Throws Error on
  /// a bad request, with its index when there are several; nothing has changed then.
  void begin(const std::vector<GenerationRequest>& requests, std::span<const int> end_token_ids,
             const DecodeOptions& options, Stepper& stepper);
  /// Gives up what is under way; what is in the cache stays for prefix reuse.
  void abandon();

  /// The next step, or nothing when no sequence has work that may be started now. The batch refers
  /// to this object.
  const Batch* next_batch();
  /// Takes in the results of the oldest step that next_batch gave and was not taken in.
  /// Throws Error, as after fail_oldest_step(), when the step found no token for a sequence.
  std::vector<StepToken> absorb(StepResult result);
  /// Instead of absorb(), for a step that did not come to its end: the newest when its launch
  /// threw, the oldest when its results did not come. All sequences end, without a reason; what the
  /// step's own have in the cache is unknown and not used again.
  void fail_newest_step();
  void fail_oldest_step();
  void finish(int sequence, FinishReason reason);
  bool done() const;
  /// A callback must see a step before the next one can be made.
  bool waits_for_host() const { return options_.logits_processor != nullptr; }

  const std::vector<GenerationOutput>& outputs() const { return outputs_; }
  int64_t blocks_used_peak() const { return blocks_used_peak_; }
  /// Aborts when a block is lost or held twice.
  void check_integrity() const;

 private:
  // The cache of one slot: what is left of the sequence before, or the one under way.
  struct Slot {
    std::vector<int32_t>
        tokens;  // whose K and V are stored, by position; new ones as they become known
    std::vector<BlockList> blocks;  // by group; with beams, those of the first one
    // Of the other beams under way, by group: the prompt's whole blocks, shared, and then their
    // own.
    std::vector<std::vector<BlockList>> beam_blocks;
    std::vector<int64_t> rope_variants;
    int sequence = -1;  // index of the request under way
  };
  struct Sequence {
    GenerationRequest request;
    EncoderInput encoder;
    int slot = -1;
    int computed = 0;   // tokens whose K and V are stored or in a step under way
    int scheduled = 0;  // new tokens chosen or being chosen
    int max_new = 0;
    int prompt_end =
        0;  // prompt tokens that run: all, or all but the last when no logits follow it
    std::vector<int> end_ids;
    bool all_rows = false;         // logits of prompt rows are wanted
    std::vector<int32_t> targets;  // of the step under way
    std::optional<BeamSearch> search;
    bool ended = false;
    int prompt_length() const { return static_cast<int>(request.input_ids.size()); }
    bool in_context() const { return computed < prompt_end; }
  };
  // What absorb() must know about a step.
  struct StepRecord {
    std::vector<int> sequences;
    std::vector<char> sampled;
  };

  static int prompt_end(const GenerationRequest& request, const DecodeOptions& options);
  int known_ids(const GenerationRequest& request, const std::string& where) const;
  void validate(const std::vector<GenerationRequest>& requests, const DecodeOptions& options) const;
  void start(int index, std::span<const int> end_token_ids, Stepper& stepper);
  void assign_slots();
  int reusable_prefix(const Sequence& sequence, const Slot& slot) const;
  std::vector<int64_t> rope_variants(int prompt_length) const;
  bool add_context(Batch& batch, int index, int* rows, int* longest);
  void add_generation(Batch& batch, int index);
  void attach_hooks(Batch& batch, const StepRecord& record);
  void extend_blocks(Sequence& sequence, int tokens);
  void grow(size_t group, BlockList& list, int tokens);
  void release_behind_windows(Sequence& sequence);
  void fork_beams(Sequence& sequence);
  void release_beams(Slot& slot);
  void forget(const StepRecord& record);
  std::vector<int32_t> ids_of(int index, int beam) const;
  void process_logits(int index, int beam, std::span<float> row) const;
  void take_in(const StepRecord& record, StepResult& result, std::vector<StepToken>* added);
  void take_beams(int index, const BeamChoices& choices, std::vector<StepToken>* added);
  FinishReason reason_to_end(int index, int id);
  void take_token(int index, TokenLogprobs token, std::vector<StepToken>* added);

  SessionLimits limits_;
  std::vector<engine::KvGroup> groups_;
  std::vector<KvBlocks> blocks_;
  std::vector<ops::RopeScaling> ropes_;
  std::vector<Slot> slots_;
  std::vector<Sequence> sequences_;
  std::vector<GenerationOutput> outputs_;
  DecodeOptions options_;
  int logprobs_ = -1;             // best ones that some request of the batch wants
  std::array<Batch, 2> batches_;  // the step being run and the one prepared meanwhile
  std::vector<StepRecord> under_way_;
  int64_t steps_ = 0;
  int64_t blocks_used_peak_ = 0;
};

}  // namespace millrace::runtime
