// Beam search of one request, as transformers does it: which hypotheses are finished, what their
// scores are, when it is over. Pure host code over the continuations that ops/beam_step chose; the
// device goes on by itself meanwhile.
#pragma once

#include <cstdint>
#include <vector>

#include "millrace/generation_session.h"
#include "runtime/step.h"

namespace millrace::runtime {

class BeamSearch {
 public:
  struct Options {
    int beams = 0;
    double length_penalty = 1;
    EarlyStopping early_stopping = EarlyStopping::kFalse;
    int max_new_tokens = 0;
    std::vector<int> end_ids;   // of the model
    std::vector<int> stop_ids;  // of the request, which are reported
  };

  explicit BeamSearch(Options options) : options_(std::move(options)) {}

  /// Takes in the next step. What comes after the end changes nothing.
  void absorb(const BeamChoices& choices);
  bool done() const { return done_; }
  /// New tokens so far.
  int length() const { return static_cast<int>(steps_.size()); }

  /// New tokens of a beam that is still running.
  std::vector<int32_t> running(int beam) const;
  /// The finished hypotheses, best first, at most `count`.
  std::vector<BeamOutput> outputs(int count) const;

 private:
  // The K beams of one step: where each comes from.
  struct Step {
    std::vector<int32_t> parents, tokens;
  };
  struct Hypothesis {
    float score = 0;     // length-normalised
    int32_t parent = 0;  // beam of step length - 2
    int32_t token = 0;   // its last
    int length = 0;
  };

  void add_finished(const BeamChoices& choices, int length);
  bool can_improve(float best_running, int length) const;
  bool ends(int32_t token) const;
  std::vector<int32_t> path(size_t length, int32_t beam) const;

  Options options_;
  std::vector<Step> steps_;
  std::vector<Hypothesis> finished_;  // best first, at most K
  bool done_ = false;
};

}  // namespace millrace::runtime
