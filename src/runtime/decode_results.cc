// What a step brings to its sequences: tokens, hypotheses, log-probabilities, the end.
#include <algorithm>

#include "runtime/decode_batch.h"

namespace millrace::runtime {

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

// kNone: with this token it goes on.
FinishReason DecodeBatch::reason_to_end(int index, int id) {
  const Sequence& sequence = sequences_[static_cast<size_t>(index)];
  GenerationOutput& output = outputs_[static_cast<size_t>(index)];
  const auto contains = [id](const std::vector<int>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  if (contains(sequence.end_ids)) return FinishReason::kStop;
  if (contains(sequence.request.sampling.stop_token_ids)) {
    output.stop_token_id = id;
    return FinishReason::kStop;
  }
  const auto tokens = static_cast<int>(output.output_ids.size());
  if (tokens == sequence.max_new) return FinishReason::kLength;
  const bool stops =
      options_.stopping_criteria && options_.stopping_criteria({index, tokens}, ids_of(index, 0));
  return stops ? FinishReason::kStop : FinishReason::kNone;
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
  const FinishReason reason = reason_to_end(index, id);
  if (reason != FinishReason::kNone) finish(index, reason);
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

}  // namespace millrace::runtime
