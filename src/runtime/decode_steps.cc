// The steps of a decode: which sequences run in the next one, with which rows.
#include <algorithm>

#include "runtime/decode_batch.h"

namespace millrace::runtime {

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

// What callers want to see of a step, or to change in it.
void DecodeBatch::attach_hooks(Batch& batch, const StepRecord& record) {
  batch.logits_sink = nullptr;
  if (options_.logits) {
    std::vector<std::pair<int, int>> places;  // request and first position of each sequence's rows
    for (size_t i = 0; i < record.sequences.size(); ++i) {
      places.emplace_back(record.sequences[i], batch.sequences[i].past_length);
    }
    batch.logits_sink = [this, places = std::move(places)](const LogitsRows& r) {
      const auto& [request, position] = places[static_cast<size_t>(r.sequence)];
      options_.logits(request, position + r.first_row, r.rows, r.logits);
    };
  }
  batch.logits_processor = nullptr;
  if (options_.logits_processor) {
    batch.logits_processor = [this, &batch, requests = record.sequences](int s,
                                                                         std::span<float> row) {
      const int slot = batch.sequences[static_cast<size_t>(s)].slot;
      process_logits(requests[static_cast<size_t>(s)], slot % limits_.beams, row);
    };
  }
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
  attach_hooks(batch, record);
  under_way_.push_back(std::move(record));
  ++steps_;
  return &batch;
}

void DecodeBatch::process_logits(int index, int beam, std::span<float> row) const {
  const std::vector<int32_t> ids = ids_of(index, beam);
  const int prompt = sequences_[static_cast<size_t>(index)].prompt_length();
  options_.logits_processor({index, static_cast<int>(ids.size()) - prompt}, ids, row);
}

}  // namespace millrace::runtime
