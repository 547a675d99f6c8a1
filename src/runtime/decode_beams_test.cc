// The blocks of beams: who holds what, through forks, changes of place and the end.
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/decode_batch.h"

namespace millrace::runtime {
namespace {

constexpr int kBeams = 3, kRequests = 2, kNew = 13, kEnd = 7;

// A device of beams that choose at random. Each token that is stored gets a name; every beam knows
// the names of its past and expects to find them where the cache indirection leads.
class FakeBeams : public Stepper {
 public:
  FakeBeams(int tokens_per_block, int window) : block_(tokens_per_block), window_(window) {}

  int max_sequences() const override { return kRequests * kBeams; }
  int max_num_tokens() const override { return 8; }
  bool runs_ahead() const override { return false; }
  void begin_sequence(int, const SequenceOptions&) override {}

  void launch(const Batch& batch) override {
    EXPECT_EQ(batch.beams, kBeams);
    result_ = {};
    result_.chosen.resize(batch.sequences.size());
    result_.targets.resize(batch.sequences.size());
    result_.beams.resize(batch.sequences.size());
    for (size_t s = 0; s < batch.sequences.size(); ++s)
      run(batch, s);
    for (size_t s = 0; s < batch.sequences.size(); ++s) {
      if (batch.sequences[s].sample && batch.sequences[s].slot % kBeams == 0) {
        result_.beams[s] = choose(batch.sequences[s]);
      }
    }
  }
  StepResult collect() override { return std::move(result_); }

  std::vector<int> lengths_seen;

 private:
  struct Cell {
    int holder = 0;  // slot whose blocks have it
    int name = 0;
  };

  static int32_t block_of(const StepSequence& s, int64_t entry) {
    return s.blocks[0].at(static_cast<size_t>(entry));
  }

  void run(const Batch& batch, size_t index) {
    const StepSequence& s = batch.sequences[index];
    std::vector<Cell>& past = slots_[s.slot];
    if (s.is_context) {  // goes on from what the slot's last prompt left
      past = prompts_[s.slot];
      past.resize(static_cast<size_t>(s.past_length));
    }
    EXPECT_EQ(std::ssize(past), s.past_length);
    for (int i = 0; i < s.num_tokens(); ++i) {
      const int position = s.past_length + i;
      stored_[{block_of(s, position / block_), position % block_}] = ++names_;
      past.push_back({s.slot, names_});
    }
    if (s.is_context) prompts_[s.slot] = past;
    const int end = s.past_length + s.num_tokens();
    for (int position = window_ > 0 ? std::max(0, end - window_) : 0; position < end; ++position) {
      const Cell& cell = past[static_cast<size_t>(position)];
      const StepSequence& holder =
          batch.sequences[index + static_cast<size_t>(cell.holder) - static_cast<size_t>(s.slot)];
      EXPECT_EQ((stored_[{block_of(holder, position / block_), position % block_}]), cell.name)
          << "slot " << s.slot << " position " << position;
    }
  }

  /// New beams behind the prompt, then parents at random; the first step's tables as beam_reorder
  /// makes them.
  BeamChoices choose(const StepSequence& s) {
    lengths_seen.push_back(s.past_length + s.num_tokens());
    BeamChoices c{std::vector<float>(2 * kBeams, -1), std::vector<int32_t>(2 * kBeams),
                  std::vector<int32_t>(2 * kBeams, 1)};
    for (size_t b = 0; b < 2 * kBeams; ++b) {
      c.scores[b] = -static_cast<float>(lengths_seen.size() + b);
      if (!s.is_context) c.parents[b] = static_cast<int32_t>(random_() % kBeams);
    }
    std::map<int, std::vector<Cell>> next;
    for (int b = 0; b < kBeams; ++b)
      next[s.slot + b] = slots_[s.slot + c.parents[static_cast<size_t>(b)]];
    for (auto& [slot, past] : next)
      slots_[slot] = std::move(past);
    return c;
  }

  int block_, window_, names_ = 0;
  std::mt19937 random_{5};
  std::map<int, std::vector<Cell>> slots_, prompts_;
  std::map<std::pair<int32_t, int>, int> stored_;  // by block and place in it
  StepResult result_;
};

GenerationRequest request(int length) {
  GenerationRequest r;
  r.input_ids.assign(static_cast<size_t>(length), 3);
  r.sampling.num_beams = kBeams;
  r.sampling.num_return_sequences = kBeams;
  r.sampling.max_new_tokens = kNew;
  return r;
}

int64_t up(int64_t tokens, int block) {
  return (tokens + block - 1) / block;
}

TEST(DecodeBeams, ShareThePromptAndNothingIsLost) {
  for (const auto& [block, window] : {std::pair{4, 0}, {1, 0}, {16, 0}, {64, 0}, {4, 6}, {2, 5}}) {
    SCOPED_TRACE(str(block, " tokens per block, window ", window));
    engine::KvGroup group;
    group.window = window;
    const SessionLimits limits{.batch_size = kRequests,
                               .beams = kBeams,
                               .max_context_length = 21,
                               .max_new_tokens = kNew,
                               .max_seq_len = 21 + kNew,
                               .max_num_tokens = 8,
                               .vocab_size = 50};
    FakeBeams stepper(block, window);
    const int64_t plenty = 200;
    DecodeBatch batch(limits, {group}, {KvBlocks(plenty, block)}, {});
    for (int round = 0; round < 3; ++round) {  // also with what the round before left
      const std::vector<int> prompts = {21, 1 + 9 * round};
      const std::vector<int> ends = {kEnd};
      batch.begin({request(prompts[0]), request(prompts[1])}, ends, {}, stepper);
      while (const Batch* step = batch.next_batch()) {
        stepper.launch(*step);
        batch.absorb(stepper.collect());
        batch.check_integrity();
      }
      EXPECT_TRUE(batch.done());
      for (const GenerationOutput& output : batch.outputs()) {
        EXPECT_EQ(output.beams.size(), size_t{kBeams});
        EXPECT_EQ(output.output_ids.size(), size_t{kNew});
        EXPECT_EQ(output.finish_reason, FinishReason::kLength);
      }
    }
    if (window > 0) continue;
    // Prompts once; what each beam writes begins in a block of its own. The last token is never
    // stored.
    const auto held = [block = block](int prompt) {
      return prompt / block + kBeams * (up(prompt + kNew - 1, block) - prompt / block);
    };
    EXPECT_EQ(batch.blocks_used_peak(), held(21) + std::max({held(1), held(10), held(19)}));
    const int64_t copies = kBeams * (up(21 + kNew - 1, block) + up(19 + kNew - 1, block));
    if (block < 16) {
      EXPECT_LT(batch.blocks_used_peak(), copies) << "full copies";
    }
  }
}

TEST(DecodeBeams, WhatIsUnderWayCanBeGivenUp) {
  const SessionLimits limits{.batch_size = 1,
                             .beams = kBeams,
                             .max_context_length = 10,
                             .max_new_tokens = kNew,
                             .max_seq_len = 10 + kNew,
                             .max_num_tokens = 8,
                             .vocab_size = 50};
  for (int steps = 0; steps < 6; ++steps) {
    FakeBeams stepper(4, 0);
    DecodeBatch batch(limits, {engine::KvGroup{}}, {KvBlocks(40, 4)}, {});
    const std::vector<int> ends = {kEnd};
    batch.begin({request(10)}, ends, {}, stepper);
    for (int i = 0; i < steps; ++i) {
      stepper.launch(*batch.next_batch());
      batch.absorb(stepper.collect());
    }
    if (steps % 2 == 0) {
      batch.finish(0, FinishReason::kStop);
    } else {
      batch.next_batch();
      batch.fail_newest_step();
    }
    EXPECT_TRUE(batch.done());
    batch.check_integrity();
    batch.abandon();
    batch.check_integrity();
  }
}

TEST(DecodeBeams, RequestsHaveTheSessionsWidth) {
  FakeBeams stepper(4, 0);
  const SessionLimits limits{.batch_size = 1,
                             .beams = kBeams,
                             .max_context_length = 10,
                             .max_new_tokens = 5,
                             .max_seq_len = 15,
                             .max_num_tokens = 8,
                             .vocab_size = 50};
  DecodeBatch batch(limits, {engine::KvGroup{}}, {KvBlocks(40, 4)}, {});
  GenerationRequest other = request(4);
  other.sampling.max_new_tokens = 5;
  other.sampling.num_beams = 2;
  other.sampling.num_return_sequences = 1;
  const std::vector<int> ends = {kEnd};
  try {
    batch.begin({other}, ends, {}, stepper);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "num_beams is 2, the session was set up for 3; set up its beam_width");
  }
}

}  // namespace
}  // namespace millrace::runtime
