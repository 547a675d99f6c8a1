#include "runtime/decode_batch.h"

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/error.h"

namespace millrace::runtime {
namespace {

// Without new tokens, nothing needs what the last prompt token computes, unless its logits are
// asked for.
int prompt_end(const GenerationRequest& request, const DecodeOptions& options) {
  const auto length = static_cast<int>(request.input_ids.size());
  return request.sampling.max_new_tokens == 0 && !options.prompt_logits ? length - 1 : length;
}

}  // namespace

DecodeBatch::DecodeBatch(const SessionLimits& limits, const std::vector<engine::KvGroup>& groups,
                         std::vector<KvBlocks> blocks, std::vector<ops::RopeScaling> ropes)
    : limits_(limits), groups_(groups), blocks_(std::move(blocks)), ropes_(std::move(ropes)) {
  slots_.resize(static_cast<size_t>(limits.batch_size));
  for (Slot& slot : slots_)
    slot.blocks.resize(groups_.size());
}

void DecodeBatch::validate(const std::vector<GenerationRequest>& requests,
                           const DecodeOptions& options) const {
  if (requests.empty()) throw_bad_input("no request was given", "", "give at least one prompt");
  if (static_cast<int>(requests.size()) > limits_.batch_size) {
    throw_bad_input(
        str(requests.size(), " requests, but the session was set up for ", limits_.batch_size), "",
        "set up a larger batch_size");
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerationRequest& request = requests[i];
    const std::string where = requests.size() > 1 ? str("request ", i) : "";
    const auto length = static_cast<int>(request.input_ids.size());
    if (length == 0) throw_bad_input("the prompt is empty", where, "give at least one token");
    for (const int32_t id : request.input_ids) {
      if (id >= 0 && id < limits_.vocab_size) continue;
      throw_bad_input(str("token id ", id, " is not in the vocabulary of ", limits_.vocab_size),
                      where, "use ids of this model's tokenizer");
    }
    const int end = prompt_end(request, options);
    if (end > limits_.max_context_length) {
      throw_bad_input(
          str("the prompt has ", length, " tokens, the limit is ", limits_.max_context_length),
          where, "shorten it, or raise --max-seq-len");
    }
    try {
      request.sampling.validate(limits_.vocab_size);
    } catch (Error& error) {
      if (!where.empty()) error.add_context(where);
      throw;
    }
    const int best = std::max(request.sampling.logprobs.value_or(0),
                              request.sampling.prompt_logprobs.value_or(0));
    if (best > limits_.max_logprobs) {
      throw_bad_input(str("the ", best, " best tokens are asked for, the session was set up for ",
                          limits_.max_logprobs),
                      where, "set up a larger max_logprobs");
    }
    const int max_new = request.sampling.max_new_tokens.value_or(0);
    if (max_new > limits_.max_new_tokens || end + max_new > limits_.max_seq_len) {
      throw_bad_input(str("a prompt of ", length, " and ", max_new,
                          " new tokens exceed the limit of ", limits_.max_seq_len, " tokens"),
                      where, "lower --max-new-tokens or raise --max-seq-len");
    }
  }
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
    Sequence& sequence = sequences_[i];
    const uint64_t drawn = (uint64_t{entropy()} << 32) | entropy();
    outputs_[i].seed = sequence.request.sampling.seed.value_or(drawn);
    outputs_[i].reused_tokens = sequence.computed;
    stepper.begin_sequence(sequence.slot, {.sampling = sequence.request.sampling,
                                           .prompt_length = sequence.prompt_length(),
                                           .max_new_tokens = sequence.max_new,
                                           .seed = outputs_[i].seed,
                                           .end_token_ids = end_token_ids});
    sequence.ended = sequence.max_new == 0 && (!sequence.all_rows || sequence.prompt_end == 0);
    if (sequence.ended) outputs_[i].finish_reason = FinishReason::kLength;
  }
}

void DecodeBatch::abandon() {
  CHECK(under_way_.empty(), "a step is still under way");
  for (Slot& slot : slots_)
    slot.sequence = -1;
  sequences_.clear();
}

std::vector<int64_t> DecodeBatch::rope_variants(int prompt_length) const {
  std::vector<int64_t> variants;
  for (const ops::RopeScaling& rope : ropes_) {
    variants.push_back(ops::rope_variant(rope, prompt_length));
  }
  return variants;
}

int DecodeBatch::reusable_prefix(const Sequence& sequence, const Slot& slot) const {
  // With an encoder, every row depends on the whole input.
  if (limits_.encoder.kind != engine::ModelKind::kDecoder) return 0;
  if (sequence.all_rows || slot.rope_variants != rope_variants(sequence.prompt_length())) return 0;
  const std::vector<int32_t>& ids = sequence.request.input_ids;
  // The last prompt token always runs: its logits choose the first new token.
  const size_t most = std::min(slot.tokens.size(), ids.size() - 1);
  size_t common = 0;
  while (common < most && slot.tokens[common] == ids[common])
    ++common;
  // What lies behind a window may be gone; what the next position sees must be there.
  for (size_t g = 0; g < groups_.size(); ++g) {
    const int first =
        groups_[g].window > 0 ? std::max(0, static_cast<int>(common) - groups_[g].window + 1) : 0;
    const int tokens = blocks_[g].tokens_per_block();
    for (size_t position = 0; position < common; position += static_cast<size_t>(tokens)) {
      const bool visible = static_cast<int>(position) + tokens > first ||
                           static_cast<int>(position) < groups_[g].sink_tokens;
      if (visible && slot.blocks[g][position / static_cast<size_t>(tokens)] == kNoBlock) return 0;
    }
  }
  return static_cast<int>(common);
}

// Longest prefixes first: each request gets the best slot that is left.
void DecodeBatch::assign_slots() {
  for (size_t taken = 0; taken < sequences_.size(); ++taken) {
    int best_sequence = -1, best_slot = -1, best = -1;
    for (size_t i = 0; i < sequences_.size(); ++i) {
      if (sequences_[i].slot >= 0) continue;
      for (size_t s = 0; s < slots_.size(); ++s) {
        if (slots_[s].sequence >= 0) continue;
        const int prefix = reusable_prefix(sequences_[i], slots_[s]);
        // Of slots without use, an empty one: what others remember may serve later.
        const bool emptier = prefix == best && best_slot >= 0 && slots_[s].tokens.empty() &&
                             !slots_[static_cast<size_t>(best_slot)].tokens.empty() &&
                             best_sequence == static_cast<int>(i);
        if (prefix <= best && !emptier) continue;
        best = prefix;
        best_sequence = static_cast<int>(i);
        best_slot = static_cast<int>(s);
      }
    }
    Sequence& sequence = sequences_[static_cast<size_t>(best_sequence)];
    Slot& slot = slots_[static_cast<size_t>(best_slot)];
    sequence.slot = best_slot;
    sequence.computed = best;
    slot.sequence = best_sequence;
    slot.tokens.resize(static_cast<size_t>(best));
    slot.rope_variants = rope_variants(sequence.prompt_length());
    for (size_t g = 0; g < groups_.size(); ++g)
      blocks_[g].truncate(slot.blocks[g], best);
  }
}

void DecodeBatch::extend_blocks(Sequence& sequence, int tokens) {
  // First, so that a sequence never holds more than its window and one step, also when a step is
  // under way: steps run in order, so that one is done with these blocks before they are written.
  release_behind_windows(sequence);
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  for (size_t g = 0; g < groups_.size(); ++g) {
    KvBlocks& pool = blocks_[g];
    while (!pool.grow(slot.blocks[g], groups_[g].cross ? sequence.encoder.length : tokens)) {
      // Only caches that idle slots remember can be in the way: setup() gave room for every
      // sequence.
      const auto idle = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) {
        return s.sequence < 0 && !s.tokens.empty();
      });
      CHECK(idle != slots_.end(), "the KV pool is too small for the batch");
      idle->tokens.clear();
      for (size_t h = 0; h < groups_.size(); ++h)
        blocks_[h].truncate(idle->blocks[h], 0);
    }
  }
  int64_t used = 0;
  for (const KvBlocks& pool : blocks_)
    used += pool.num_blocks() - pool.num_free();
  blocks_used_peak_ = std::max(blocks_used_peak_, used);
}

void DecodeBatch::release_behind_windows(Sequence& sequence) {
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  for (size_t g = 0; g < groups_.size(); ++g) {
    if (groups_[g].window == 0) continue;
    blocks_[g].release_before(slot.blocks[g],
                              std::max(0, sequence.computed - groups_[g].window + 1),
                              groups_[g].sink_tokens);
  }
}

// Adds as much of the sequence's prompt as the step has room for.
bool DecodeBatch::add_context(Batch& batch, int index, int* rows, int* longest) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  const auto count = static_cast<int>(batch.sequences.size());
  // Padded, every sequence takes as many rows as the longest.
  const int room =
      limits_.padded ? limits_.max_num_tokens / (count + 1) : limits_.max_num_tokens - *rows;
  const int tokens = std::min(sequence.prompt_end - sequence.computed, room);
  if (tokens <= 0 || (limits_.padded && *longest > room)) return false;
  const bool in_pieces = tokens < sequence.prompt_end - sequence.computed;
  if (in_pieces && limits_.encoder.kind == engine::ModelKind::kEncoder) return false;
  *rows += tokens;
  *longest = std::max(*longest, tokens);
  const int end = sequence.computed + tokens;
  extend_blocks(sequence, end);
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  const std::span<const int32_t> ids = sequence.request.input_ids;
  StepSequence step;
  step.slot = sequence.slot;
  step.is_context = true;
  step.past_length = sequence.computed;
  step.tokens = ids.subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(tokens));
  step.blocks = slot.blocks;
  step.encoder_length = sequence.encoder.length;
  if (sequence.computed == 0) {
    step.encoder_ids = sequence.encoder.ids;
    step.encoder_features = sequence.encoder.features;
  }
  step.sample = end == sequence.prompt_end && sequence.max_new > 0;
  if (sequence.all_rows) {
    // A row predicts the token after it; the last row has none unless the prompt goes on.
    const int last = std::min(end + 1, sequence.prompt_length());
    sequence.targets.assign(ids.begin() + sequence.computed + 1, ids.begin() + last);
    if (end == sequence.prompt_end && !step.sample && options_.prompt_logits) {
      sequence.targets.push_back(0);  // nothing follows; only the logits of this row are wanted
    }
    step.targets = sequence.targets;
  }
  slot.tokens.insert(slot.tokens.end(), step.tokens.begin(), step.tokens.end());
  sequence.computed = end;
  if (step.sample) ++sequence.scheduled;
  batch.sequences.push_back(step);
  return true;
}

void DecodeBatch::add_generation(Batch& batch, int index) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  extend_blocks(sequence, sequence.computed + 1);
  StepSequence step;
  step.slot = sequence.slot;
  step.past_length = sequence.computed;
  step.blocks = slots_[static_cast<size_t>(sequence.slot)].blocks;
  step.encoder_length = sequence.encoder.length;
  step.sample = true;
  batch.sequences.push_back(step);
  ++sequence.computed;
  ++sequence.scheduled;
}

const Batch* DecodeBatch::next_batch() {
  Batch& batch = batches_[static_cast<size_t>(steps_ % 2)];
  batch.sequences.clear();
  batch.logprobs = logprobs_;
  batch.padded = limits_.padded;
  StepRecord record;
  int rows = 0, longest = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const auto index = static_cast<int>(i);
    if (sequences_[i].ended || !sequences_[i].in_context()) continue;
    if (!add_context(batch, index, &rows, &longest)) break;
    record.sequences.push_back(index);
  }
  if (batch.sequences.empty()) {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      const Sequence& sequence = sequences_[i];
      if (sequence.ended || sequence.scheduled == sequence.max_new) continue;
      add_generation(batch, static_cast<int>(i));
      record.sequences.push_back(static_cast<int>(i));
    }
  }
  if (batch.sequences.empty()) return nullptr;
  for (const StepSequence& s : batch.sequences)
    record.sampled.push_back(s.sample ? 1 : 0);
  if (options_.logits) {
    std::vector<std::pair<int, int>> places;  // request and first position of each sequence's rows
    for (size_t i = 0; i < record.sequences.size(); ++i) {
      places.emplace_back(record.sequences[i], batch.sequences[i].past_length);
    }
    batch.logits_sink = [this, places = std::move(places)](const LogitsRows& r) {
      const auto& [request, position] = places[static_cast<size_t>(r.sequence)];
      options_.logits(request, position + r.first_row, r.rows, r.logits);
    };
  } else {
    batch.logits_sink = nullptr;
  }
  under_way_.push_back(std::move(record));
  ++steps_;
  return &batch;
}

void DecodeBatch::take_token(int index, TokenLogprobs token, std::vector<StepToken>* added) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  GenerationOutput& output = outputs_[static_cast<size_t>(index)];
  const SamplingParams& sampling = sequence.request.sampling;
  const int32_t id = token.id;
  output.output_ids.push_back(id);
  if (sampling.logprobs) {
    token.top.resize(std::min(token.top.size(), static_cast<size_t>(*sampling.logprobs)));
    output.logprobs.push_back({id, token.logprob, std::move(token.top)});
  }
  const auto contains = [id](const std::vector<int>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (contains(sequence.end_ids)) {
    finish(index, FinishReason::kStop);
  } else if (contains(sampling.stop_token_ids)) {
    output.stop_token_id = id;
    finish(index, FinishReason::kStop);
  } else if (static_cast<int>(output.output_ids.size()) == sequence.max_new) {
    finish(index, FinishReason::kLength);
  }
  added->push_back({index, id, output.finish_reason});
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
  for (size_t i = 0; i < record.sequences.size(); ++i) {
    const int index = record.sequences[i];
    Sequence& sequence = sequences_[static_cast<size_t>(index)];
    GenerationOutput& output = outputs_[static_cast<size_t>(index)];
    if (const auto& wanted = sequence.request.sampling.prompt_logprobs) {
      for (TokenLogprobs& t : result.targets[i]) {
        t.top.resize(std::min(t.top.size(), static_cast<size_t>(*wanted)));
        if (static_cast<int>(output.prompt_logprobs.size()) < sequence.prompt_length() - 1) {
          output.prompt_logprobs.push_back({t.id, t.logprob, std::move(t.top)});
        }
      }
    }
    // A step ahead may have run for a sequence that had ended: its token is void.
    if (!sequence.ended && record.sampled[i] != 0) {
      take_token(index, std::move(result.chosen[i]), &added);
    }
    if (!sequence.ended && sequence.max_new == 0 && !sequence.in_context()) {
      finish(index, FinishReason::kLength);
    }
    // The new token's K and V are stored only by the step that reads it.
    Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
    const auto stored = static_cast<size_t>(sequence.computed - sequence.prompt_length());
    while (!sequence.in_context() && slot.tokens.size() < static_cast<size_t>(sequence.computed) &&
           slot.tokens.size() - static_cast<size_t>(sequence.prompt_length()) <
               std::min(stored, output.output_ids.size())) {
      slot.tokens.push_back(
          output.output_ids[slot.tokens.size() - static_cast<size_t>(sequence.prompt_length())]);
    }
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
}

bool DecodeBatch::done() const {
  return std::all_of(sequences_.begin(), sequences_.end(),
                     [](const Sequence& s) { return s.ended; });
}

void DecodeBatch::check_integrity() const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<const BlockList*> lists;
    for (const Slot& slot : slots_)
      lists.push_back(&slot.blocks[g]);
    blocks_[g].check_integrity(lists);
  }
}

}  // namespace millrace::runtime
