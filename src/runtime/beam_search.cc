#include "runtime/beam_search.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace millrace::runtime {
namespace {

constexpr float kNoHypothesis = -1e9F;  // transformers' score of a place that is not taken yet

bool contains(const std::vector<int>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

/// Float, divided by a number computed in double, as PyTorch does it.
float normalised(float score, int length, double penalty) {
  return score / static_cast<float>(std::pow(length, penalty));
}

}  // namespace

bool BeamSearch::ends(int32_t token) const {
  return contains(options_.end_ids, token) || contains(options_.stop_ids, token);
}

void BeamSearch::absorb(const BeamChoices& choices) {
  if (done_) return;
  const auto k = static_cast<size_t>(options_.beams);
  CHECK(choices.scores.size() == 2 * k);
  const int new_length = length() + 1;
  add_finished(choices, new_length);
  steps_.push_back({{choices.parents.begin(), choices.parents.begin() + options_.beams},
                    {choices.tokens.begin(), choices.tokens.begin() + options_.beams}});
  const bool all_taken = finished_.size() == k;
  done_ = new_length == options_.max_new_tokens ||
          (all_taken && options_.early_stopping == EarlyStopping::kTrue) ||
          !can_improve(choices.scores[0], new_length);
}

// Only what is among the K best of all becomes a hypothesis; at the last length each of them does.
void BeamSearch::add_finished(const BeamChoices& choices, int length) {
  const auto k = static_cast<size_t>(options_.beams);
  for (size_t i = k; i < 2 * k; ++i) {
    if (!ends(choices.tokens[i]) && length < options_.max_new_tokens) continue;
    const float score = normalised(choices.scores[i], length, options_.length_penalty);
    if (!(score > kNoHypothesis)) continue;
    const auto place = std::find_if(finished_.begin(), finished_.end(),
                                    [&](const Hypothesis& h) { return score > h.score; });
    finished_.insert(place, {score, choices.parents[i], choices.tokens[i], length});
    if (finished_.size() > k) finished_.pop_back();
  }
}

// What the best running beam might still reach, against the worst hypothesis.
bool BeamSearch::can_improve(float best_running, int length) const {
  const bool up_to_the_limit =
      options_.early_stopping == EarlyStopping::kNever && options_.length_penalty > 0;
  const float possible = normalised(
      best_running, up_to_the_limit ? options_.max_new_tokens : length, options_.length_penalty);
  const bool all_taken = finished_.size() == static_cast<size_t>(options_.beams);
  return possible > (all_taken ? finished_.back().score : kNoHypothesis);
}

/// Tokens of the first `length` steps, of which the last one was of `beam`.
std::vector<int32_t> BeamSearch::path(size_t length, int32_t beam) const {
  std::vector<int32_t> tokens(length);
  auto at = static_cast<size_t>(beam);
  for (size_t i = length; i-- > 0;) {
    tokens[i] = steps_[i].tokens[at];
    at = static_cast<size_t>(steps_[i].parents[at]);
  }
  return tokens;
}

std::vector<int32_t> BeamSearch::running(int beam) const {
  return path(steps_.size(), beam);
}

std::vector<BeamOutput> BeamSearch::outputs(int count) const {
  std::vector<BeamOutput> outputs;
  for (const Hypothesis& h : finished_) {
    if (std::ssize(outputs) == count) break;
    BeamOutput output{.output_ids = path(static_cast<size_t>(h.length) - 1, h.parent),
                      .score = h.score};
    output.output_ids.push_back(h.token);
    output.finish_reason = ends(h.token) ? FinishReason::kStop : FinishReason::kLength;
    if (!contains(options_.end_ids, h.token) && contains(options_.stop_ids, h.token)) {
      output.stop_token_id = h.token;
    }
    outputs.push_back(std::move(output));
  }
  return outputs;
}

}  // namespace millrace::runtime
