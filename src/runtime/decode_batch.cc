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

/// Ids below this number have an embedding: the vocabulary's and the virtual ones.
int DecodeBatch::known_ids(const GenerationRequest& request, const std::string& where) const {
  if (request.prompt_table.empty()) return limits_.vocab_size;
  if (limits_.prompt_table_rows == 0) {
    throw_bad_input("the engine was built without virtual tokens", where,
                    "build it with max_prompt_table_rows");
  }
  const size_t width = static_cast<size_t>(limits_.prompt_table_width);
  const size_t rows = request.prompt_table.size() / width;
  if (request.prompt_table.size() % width != 0 ||
      rows > static_cast<size_t>(limits_.prompt_table_rows)) {
    throw_bad_input(str("the prompt table has ", request.prompt_table.size(), " numbers"), where,
                    str("give rows of ", width, ", at most ", limits_.prompt_table_rows));
  }
  return limits_.vocab_size + static_cast<int>(rows);
}

void DecodeBatch::validate(const std::vector<GenerationRequest>& requests,
                           const DecodeOptions& options) const {
  if (requests.empty()) throw_bad_input("no request was given", "", "give at least one prompt");
  if (limits_.beams > 1 && options.stopping_criteria) {
    throw_bad_input("stopping criteria are not supported with beams", "", "use stop_token_ids");
  }
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
    const int known = known_ids(request, where);
    for (const int32_t id : request.input_ids) {
      if (id >= 0 && id < known) continue;
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
    if (request.sampling.num_beams != limits_.beams) {
      throw_bad_input(str("num_beams is ", request.sampling.num_beams,
                          ", the session was set up for ", limits_.beams),
                      where, "set up its beam_width");
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
    for (int beam = 0; beam < limits_.beams; ++beam) {
      stepper.begin_sequence(sequence.slot * limits_.beams + beam,
                             {.sampling = sequence.request.sampling,
                              .prompt_length = sequence.prompt_length(),
                              .max_new_tokens = sequence.max_new,
                              .seed = outputs_[i].seed,
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
    if (sequence.ended) outputs_[i].finish_reason = FinishReason::kLength;
  }
}

void DecodeBatch::abandon() {
  CHECK(under_way_.empty(), "a step is still under way");
  for (Slot& slot : slots_) {
    slot.sequence = -1;
    release_beams(slot);
  }
  sequences_.clear();
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
  step.slot = sequence.slot * limits_.beams;
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
  Slot& slot = slots_[static_cast<size_t>(sequence.slot)];
  if (limits_.beams > 1 && slot.beam_blocks.empty()) fork_beams(sequence);
  extend_blocks(sequence, sequence.computed + 1);
  StepSequence step;
  step.slot = sequence.slot * limits_.beams;
  step.past_length = sequence.computed;
  step.blocks = slot.blocks;
  step.encoder_length = sequence.encoder.length;
  step.sample = true;
  batch.sequences.push_back(step);
  for (const auto& lists : slot.beam_blocks) {
    ++step.slot;
    step.blocks = lists;
    batch.sequences.push_back(step);
  }
  ++sequence.computed;
  ++sequence.scheduled;
}

const Batch* DecodeBatch::next_batch() {
  Batch& batch = batches_[static_cast<size_t>(steps_ % 2)];
  batch.sequences.clear();
  batch.logprobs = logprobs_;
  batch.padded = limits_.padded;
  batch.beams = limits_.beams;
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
      record.sequences.resize(batch.sequences.size(), static_cast<int>(i));
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
  batch.logits_processor = nullptr;
  if (options_.logits_processor) {
    batch.logits_processor = [this, &batch, requests = record.sequences](int s,
                                                                         std::span<float> row) {
      const int slot = batch.sequences[static_cast<size_t>(s)].slot;
      process_logits(requests[static_cast<size_t>(s)], slot % limits_.beams, row);
    };
  }
  under_way_.push_back(std::move(record));
  ++steps_;
  return &batch;
}

// Prompt and new tokens that are known.
std::vector<int32_t> DecodeBatch::ids_of(int index, int beam) const {
  const Sequence& sequence = sequences_[static_cast<size_t>(index)];
  std::vector<int32_t> ids = sequence.request.input_ids;
  const std::vector<int32_t> added = sequence.search
                                         ? sequence.search->running(beam)
                                         : outputs_[static_cast<size_t>(index)].output_ids;
  ids.insert(ids.end(), added.begin(), added.end());
  return ids;
}

void DecodeBatch::process_logits(int index, int beam, std::span<float> row) const {
  const std::vector<int32_t> ids = ids_of(index, beam);
  const int prompt = sequences_[static_cast<size_t>(index)].prompt_length();
  options_.logits_processor({index, static_cast<int>(ids.size()) - prompt}, ids, row);
}

// Tokens are known when the search is over: those of the best hypothesis.
void DecodeBatch::take_beams(int index, const BeamChoices& choices, std::vector<StepToken>* added) {
  Sequence& sequence = sequences_[static_cast<size_t>(index)];
  GenerationOutput& output = outputs_[static_cast<size_t>(index)];
  sequence.search->absorb(choices);
  if (!sequence.search->done()) return;
  output.beams = sequence.search->outputs(sequence.request.sampling.num_return_sequences);
  if (output.beams.empty()) {
    finish(index, FinishReason::kLength);
    return;
  }
  const BeamOutput& best = output.beams[0];
  output.output_ids = best.output_ids;
  output.stop_token_id = best.stop_token_id;
  finish(index, best.finish_reason);
  for (const int32_t id : best.output_ids)
    added->push_back({index, id, FinishReason::kNone});
  added->back().finish_reason = best.finish_reason;
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
  } else if (options_.stopping_criteria &&
             options_.stopping_criteria({index, static_cast<int>(output.output_ids.size())},
                                        ids_of(index, 0))) {
    finish(index, FinishReason::kStop);
  }
  added->push_back({index, id, output.finish_reason});
}

void DecodeBatch::take_in(const StepRecord& record, StepResult& result,
                          std::vector<StepToken>* added) {
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
      if (!sequence.search) {
        take_token(index, std::move(result.chosen[i]), added);
      } else if (!result.beams[i].scores.empty()) {  // the first of its beams
        take_beams(index, result.beams[i], added);
      }
    }
    if (!sequence.ended && sequence.max_new == 0 && !sequence.in_context()) {
      finish(index, FinishReason::kLength);
    }
    if (sequence.search) continue;  // what beams have stored is given back, all but the prompt
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
