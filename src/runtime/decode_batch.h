// The sequences of one decode: where each stands, which blocks it holds, what the next step of the
// batch is.
#pragma once

#include <memory>
#include <vector>

#include "engine/plan.h"
#include "millrace/generation_session.h"
#include "ops/common/rope_frequencies.h"
#include "runtime/encoder_input.h"
#include "runtime/kv_blocks.h"
#include "runtime/step.h"

namespace millrace::runtime {

/// What a session fixes at setup.
struct SessionLimits {
  int batch_size = 0;
  int max_context_length = 0;
  int max_new_tokens = 0;
  int max_seq_len = 0;     // of a sequence, prompt and new tokens
  int max_num_tokens = 0;  // of a step
  int max_logprobs = 0;
  int vocab_size = 0;
  bool padded = false;
  EncoderLimits encoder;
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

  const std::vector<GenerationOutput>& outputs() const { return outputs_; }
  int64_t blocks_used_peak() const { return blocks_used_peak_; }
  /// Aborts when a block is lost or held twice.
  void check_integrity() const;

 private:
  // The cache of one slot: what is left of the sequence before, or the one under way.
  struct Slot {
    std::vector<int32_t>
        tokens;  // whose K and V are stored, by position; new ones as they become known
    std::vector<BlockList> blocks;  // by group
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
    bool ended = false;
    int prompt_length() const { return static_cast<int>(request.input_ids.size()); }
    bool in_context() const { return computed < prompt_end; }
  };
  // What absorb() must know about a step.
  struct StepRecord {
    std::vector<int> sequences;
    std::vector<char> sampled;
  };

  void validate(const std::vector<GenerationRequest>& requests, const DecodeOptions& options) const;
  void assign_slots();
  int reusable_prefix(const Sequence& sequence, const Slot& slot) const;
  std::vector<int64_t> rope_variants(int prompt_length) const;
  bool add_context(Batch& batch, int index, int* rows, int* longest);
  void add_generation(Batch& batch, int index);
  void extend_blocks(Sequence& sequence, int tokens);
  void release_behind_windows(Sequence& sequence);
  void forget(const StepRecord& record);
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
