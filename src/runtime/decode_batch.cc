#include "runtime/decode_batch.h"

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/error.h"

namespace millrace::runtime {

DecodeBatch::DecodeBatch(const SessionLimits& limits, const std::vector<engine::KvGroup>& groups,
                         std::vector<KvBlocks> blocks, std::vector<ops::RopeScaling> ropes)
    : limits_(limits), groups_(groups), blocks_(std::move(blocks)), ropes_(std::move(ropes)) {
  slots_.resize(static_cast<size_t>(limits.batch_size));
  for (Slot& slot : slots_)
    slot.blocks.resize(groups_.size());
}

// Without new tokens, nothing needs what the last prompt token computes, unless its logits are
// asked for.
int DecodeBatch::prompt_end(const GenerationRequest& request, const DecodeOptions& options) {
  const auto length = static_cast<int>(request.input_ids.size());
  return request.sampling.max_new_tokens == 0 && !options.prompt_logits ? length - 1 : length;
}

void DecodeBatch::begin(const std::vector<GenerationRequest>& all_requests,
                        std::span<const int> end_token_ids, const DecodeOptions& options,
                        Stepper& stepper) {
  std::vector<GenerationRequest> requests = all_requests;
  std::vector<EncoderInput> inputs = take_encoder_inputs(requests, limits_.encoder);
  validate(requests, options);
  abandon();
  options_ = options;
  outputs_.assign(requests.size(), {});
  sequences_.clear();
  logprobs_ = -1;
  for (const GenerationRequest& request : requests) {
    const SamplingParams& sampling = request.sampling;
    Sequence sequence;
    sequence.request = request;
    sequence.max_new = sampling.max_new_tokens.value_or(
        std::min(limits_.max_new_tokens, limits_.max_seq_len - sequence.prompt_length()));
    if (!sampling.ignore_eos) {
      sequence.end_ids = sampling.end_token_ids.value_or(
          std::vector<int>(end_token_ids.begin(), end_token_ids.end()));
    }
    sequence.prompt_end = prompt_end(request, options);
    sequence.all_rows = sampling.prompt_logprobs.has_value() || options.prompt_logits;
    logprobs_ = std::max(
        {logprobs_, sampling.logprobs.value_or(-1), sampling.prompt_logprobs.value_or(-1)});
    sequence.encoder = std::move(inputs[sequences_.size()]);
    sequences_.push_back(std::move(sequence));
  }
  assign_slots();
  std::random_device entropy;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const uint64_t drawn = (uint64_t{entropy()} << 32) | entropy();
    outputs_[i].seed = sequences_[i].request.sampling.seed.value_or(drawn);
    start(static_cast<int>(i), end_token_ids, stepper);
  }
}

void DecodeBatch::start(int index, std::span<const int> end_token_ids, Stepper& stepper) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  GenerationOutput& output = outputs_[static_cast<size_t>(index)];
  output.reused_tokens = sequence.computed;
  for (int beam = 0; beam < limits_.beams; ++beam) {
    stepper.begin_sequence(sequence.slot * limits_.beams + beam,
                           {.sampling = sequence.request.sampling,
                            .prompt_length = sequence.prompt_length(),
                            .max_new_tokens = sequence.max_new,
                            .seed = output.seed,
                            .prompt_table = sequence.request.prompt_table,
                            .end_token_ids = end_token_ids});
  }
  if (limits_.beams > 1) {
    const SamplingParams& sampling = sequence.request.sampling;
    sequence.search.emplace(BeamSearch::Options{.beams = limits_.beams,
                                                .length_penalty = sampling.length_penalty,
                                                .early_stopping = sampling.early_stopping,
                                                .max_new_tokens = sequence.max_new,
                                                .end_ids = sequence.end_ids,
                                                .stop_ids = sampling.stop_token_ids});
  }
  sequence.ended = sequence.max_new == 0 && (!sequence.all_rows || sequence.prompt_end == 0);
  if (sequence.ended) output.finish_reason = FinishReason::kLength;
}

void DecodeBatch::abandon() {
  CHECK(under_way_.empty(), "a step is still under way");
  for (Slot& slot : slots_) {
    slot.sequence = -1;
    release_beams(slot);
  }
  sequences_.clear();
}

std::vector<StepToken> DecodeBatch::absorb(StepResult result) {
  CHECK(!under_way_.empty());
  const StepRecord record = std::move(under_way_.front());
  under_way_.erase(under_way_.begin());
  std::vector<StepToken> added;
  if (result.failed_sequence >= 0) {
    const int request = record.sequences[static_cast<size_t>(result.failed_sequence)];
    forget(record);
    throw_failed("the logits are not finite numbers, or every token is forbidden",
                 str("request ", request),
                 "check the checkpoint, --bad-words-ids and the other limits on tokens");
  }
  try {
    take_in(record, result, &added);
  } catch (...) {  // a caller's stopping criteria
    forget(record);
    throw;
  }
  return added;
}

void DecodeBatch::fail_newest_step() {
  CHECK(!under_way_.empty());
  forget(under_way_.back());
  under_way_.pop_back();
}

void DecodeBatch::fail_oldest_step() {
  CHECK(!under_way_.empty());
  forget(under_way_.front());
  under_way_.erase(under_way_.begin());
}

void DecodeBatch::forget(const StepRecord& record) {
  for (Sequence& sequence : sequences_)
    sequence.ended = true;
  for (const int index : record.sequences) {
    Sequence& sequence = sequences_[static_cast<size_t>(index)];
    Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
    sequence.computed = 0;
    slot.tokens.clear();
    release_beams(slot);
    for (size_t g = 0; g < groups_.size(); ++g)
      blocks_[g].truncate(slot.blocks[g], 0);
  }
}

void DecodeBatch::finish(int index, FinishReason reason) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  sequence.ended = true;
  // Nobody can use what was made of this input again.
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].cross) {
      blocks_[g].truncate(slots_[static_cast<size_t>(sequence.slot)].blocks[g], 0);
    }
  }
  outputs_[static_cast<size_t>(index)].finish_reason = reason;
  if (!sequence.search) return;
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  release_beams(slot);
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int kept = groups_[g].cross ? 0 : std::min(sequence.computed, sequence.prompt_length());
    blocks_[g].truncate(slot.blocks[g], kept);
  }
}

bool DecodeBatch::done() const {
  return std::all_of(sequences_.begin(), sequences_.end(),
                     [](const Sequence& s) { return s.ended; });
}

}  // namespace millrace::runtime
