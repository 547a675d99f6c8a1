#include "runtime/decode_batch.h"

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "base/error.h"

namespace millrace::runtime {
namespace {

constexpr int kVocab = 50;

// The token that follows these: a rule that depends on every one of them and on their order.
int32_t next_of(const std::vector<int32_t>& visible) {
  uint32_t state = 1;
  for (const int32_t id : visible)
    state = state * 31 + static_cast<uint32_t>(id) + 7;
  return static_cast<int32_t>((state >> 8) % kVocab);
}

using ops::RopeRule;
constexpr int kFirstLong = 25;  // the shortest prompt with frequencies of its own

// Which frequencies a prompt of this length is computed with, by the definitions: "dynamic" has
// some of its own for each length beyond its limit, "longrope" one set for all of these.
int32_t frequencies(RopeRule rule, int prompt_length) {
  if (prompt_length < kFirstLong) return 0;
  if (rule == RopeRule::kDynamic) return prompt_length;
  return rule == RopeRule::kLongRope ? 1 : 0;
}

// What K of a token holds: the token, turned with the sequence's frequencies.
int32_t key(int32_t token, int32_t frequencies) {
  return token + 100 * frequencies;
}

enum class Fault { kNone, kLaunch, kCollect, kNoToken, kNoTokenAnyMore };
constexpr int32_t kGarbage = -77;

// Keeps "K and V" (of the token itself) in blocks and computes the next token from what the batch's
// block tables lead to, so that a wrong block, position or reuse gives other tokens.
class FakeStepper : public Stepper {
 public:
  FakeStepper(bool ahead, int tokens_per_block, int window, RopeRule rope)
      : ahead_(ahead), block_(tokens_per_block), window_(window), rope_(rope) {}

  // The step after `steps` more does not come to its end, and leaves garbage.
  void plant(Fault fault, int steps) {
    fault_ = fault;
    steps_to_fault_ = steps;
  }

  int max_sequences() const override { return 4; }
  int max_num_tokens() const override { return 8; }
  bool runs_ahead() const override { return ahead_; }
  void begin_sequence(int slot, const SequenceOptions& options) override {
    frequencies_[slot] = frequencies(rope_, options.prompt_length);
    chosen_[slot].clear();
  }

  void launch(const Batch& batch) override {
    StepResult result;
    int rows = 0, longest = 0;
    bool generation = false;
    for (const StepSequence& s : batch.sequences) {
      EXPECT_FALSE(generation && s.is_context) << "context sequences come first";
      generation = generation || !s.is_context;
      rows += s.num_tokens();
      longest = std::max(longest, s.num_tokens());
      result.chosen.push_back(run(s));
      result.targets.emplace_back();
      for (const int32_t id : s.targets)
        result.targets.back().push_back({id, 0, {}});
    }
    if (batch.padded) rows = longest * static_cast<int>(batch.sequences.size());
    EXPECT_LE(rows, max_num_tokens());
    rows_ += rows;
    const bool fails = fault_ != Fault::kNone && steps_to_fault_-- == 0;
    const bool still = fault_ == Fault::kNoTokenAnyMore && steps_to_fault_ < 0;
    if (still || (fails && fault_ == Fault::kNoToken)) {
      result.failed_sequences.resize(batch.sequences.size());
      std::iota(result.failed_sequences.begin(), result.failed_sequences.end(), 0);
    }
    if (fails && fault_ == Fault::kLaunch) throw Error(ErrorCode::kFailed, "launch");
    results_.push_back({std::move(result), fails && fault_ == Fault::kCollect});
    EXPECT_LE(results_.size(), ahead_ ? 2U : 1U);
  }

  StepResult collect() override {
    auto [result, lost] = std::move(results_.front());
    results_.pop_front();
    if (lost) throw Error(ErrorCode::kFailed, "collect");
    return result;
  }

  int rows() const { return rows_; }

 private:
  TokenLogprobs run(const StepSequence& s) {
    const BlockList& table = s.blocks[0];
    const auto cell = [&](int position) -> int32_t& {
      const int32_t block = table.at(static_cast<size_t>(position / block_));
      EXPECT_NE(block, kNoBlock) << "position " << position << " is gone";
      return stored_[{block, position % block_}];
    };
    const int end = s.past_length + s.num_tokens();
    const bool fails = fault_ != Fault::kNone && steps_to_fault_ == 0;
    for (int i = s.past_length; i < end; ++i) {
      const int32_t token = s.tokens.empty() ? chosen_[s.slot].at(i)
                                             : s.tokens[static_cast<size_t>(i - s.past_length)];
      cell(i) = fails ? kGarbage : key(token, frequencies_[s.slot]);
    }
    if (!s.sample) return {};
    std::vector<int32_t> visible;
    for (int i = window_ > 0 ? std::max(0, end - window_) : 0; i < end; ++i)
      visible.push_back(cell(i));
    chosen_[s.slot][end] = next_of(visible);
    return {chosen_[s.slot][end], 0, {}};
  }

  bool ahead_;
  int block_, window_, rows_ = 0;
  RopeRule rope_;
  Fault fault_ = Fault::kNone;
  int steps_to_fault_ = 0;
  std::map<int, int32_t> frequencies_;                 // by slot
  std::map<int, std::map<int, int32_t>> chosen_;       // by slot and position
  std::map<std::pair<int32_t, int>, int32_t> stored_;  // by block and place in it
  std::deque<std::pair<StepResult, bool>> results_;    // and whether it is lost
};

struct Mode {
  bool ahead = false, padded = false;
  int block = 4, window = 0;
  RopeRule rope = RopeRule::kDefault;
};

ops::RopeScaling scaling(RopeRule rule) {
  constexpr int kLimit = kFirstLong - 1;
  return {.rule = rule, .max_position = kLimit, .original_max_position = kLimit};
}

constexpr int kSequences = 4, kLength = 64, kStepTokens = 8;

// What setup() gives a batch: each sequence's length, or what its window and one step keep alive.
int pool_blocks(const Mode& setup) {
  const auto blocks = [&](int tokens) { return (tokens + setup.block - 1) / setup.block; };
  if (setup.window == 0) return kSequences * blocks(kLength);
  return kSequences * std::min(blocks(kLength), blocks(setup.window + kStepTokens - 1) + 1);
}

// The two loops of GenerationSession over one DecodeBatch.
class Driver {
 public:
  explicit Driver(const Mode& setup)
      : stepper_(setup.ahead, setup.block, setup.window, setup.rope),
        batch_({.batch_size = kSequences,
                .max_context_length = 40,
                .max_new_tokens = 24,
                .max_seq_len = kLength,
                .max_num_tokens = kStepTokens,
                .max_logprobs = 5,
                .vocab_size = kVocab,
                .padded = setup.padded},
               {{.kv_heads = 1, .k_size = 1, .v_size = 1, .window = setup.window, .layers = {}}},
               {KvBlocks(pool_blocks(setup), setup.block)}, {scaling(setup.rope)}) {}

  std::vector<GenerationOutput> decode(const std::vector<GenerationRequest>& requests,
                                       int steps = 1 << 20) {
    const std::vector<int> end = {kVocab - 1};
    while (under_way_ > 0) {
      try {
        take();
      } catch (const Error&) {
      }
    }
    batch_.begin(requests, end, {}, stepper_);
    while (steps-- > 0) {
      while (under_way_ < (stepper_.runs_ahead() ? 2 : 1) && !batch_.done()) {
        const Batch* next = batch_.next_batch();
        if (next == nullptr) break;
        try {
          stepper_.launch(*next);
        } catch (...) {
          batch_.fail_newest_step();
          throw;
        }
        ++under_way_;
      }
      if (under_way_ == 0) break;
      take();
    }
    return batch_.outputs();
  }
  /// What is under way comes to its end.
  void finish() {
    while (under_way_ > 0)
      take();
  }
  int rows() const { return stepper_.rows(); }
  void plant(Fault fault, int steps) { stepper_.plant(fault, steps); }

 private:
  void take() {
    --under_way_;
    StepResult result;
    try {
      result = stepper_.collect();
    } catch (...) {
      batch_.fail_oldest_step();
      throw;
    }
    batch_.absorb(std::move(result));
    batch_.check_integrity();
  }

  FakeStepper stepper_;
  DecodeBatch batch_;
  int under_way_ = 0;
};

GenerationRequest request(int length, int max_new, int salt) {
  GenerationRequest r;
  for (int i = 0; i < length; ++i)
    r.input_ids.push_back((i * 7 + salt) % kVocab);
  r.sampling.max_new_tokens = max_new;
  return r;
}

// What must come out, from the rule alone.
std::vector<int32_t> expected(const GenerationRequest& r, int window,
                              RopeRule rope = RopeRule::kDefault) {
  const int32_t turned = frequencies(rope, static_cast<int>(r.input_ids.size()));
  std::vector<int32_t> all, made;
  for (const int32_t id : r.input_ids)
    all.push_back(key(id, turned));
  while (static_cast<int>(made.size()) < *r.sampling.max_new_tokens) {
    const auto first =
        window > 0 && static_cast<int>(all.size()) > window ? all.end() - window : all.begin();
    made.push_back(next_of({first, all.end()}));
    all.push_back(key(made.back(), turned));
    if (made.back() == kVocab - 1) break;
  }
  return made;
}

void expect_right(const std::vector<GenerationRequest>& requests,
                  const std::vector<GenerationOutput>& outputs, int window,
                  RopeRule rope = RopeRule::kDefault) {
  ASSERT_EQ(outputs.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> ids = expected(requests[i], window, rope);
    EXPECT_EQ(outputs[i].output_ids, ids) << "request " << i;
    const bool stopped = !ids.empty() && ids.back() == kVocab - 1;
    EXPECT_EQ(outputs[i].finish_reason, stopped ? FinishReason::kStop : FinishReason::kLength);
  }
}

TEST(DecodeBatch, RaggedBatchesGiveTheRulesTokensInEveryMode) {
  for (const Mode& setup :
       {Mode{}, Mode{.ahead = true}, Mode{.padded = true}, Mode{.ahead = true, .padded = true},
        Mode{.block = 64}, Mode{.block = 1}, Mode{.window = 5}, Mode{.ahead = true, .window = 5},
        Mode{.block = 1, .window = 5}, Mode{.ahead = true, .block = 1, .window = 5}}) {
    SCOPED_TRACE(str("ahead ", setup.ahead, " padded ", setup.padded, " block ", setup.block,
                     " window ", setup.window));
    Driver driver(setup);
    for (int round = 0; round < 40; ++round) {
      std::vector<GenerationRequest> requests;
      for (int i = 0; i <= round % 4; ++i) {
        requests.push_back(request(1 + (round * 11 + i * 5) % 40, (round + 3 * i) % 24, round % 5));
      }
      expect_right(requests, driver.decode(requests), setup.window);
    }
  }
}

TEST(DecodeBatch, ComputesOnlyWhatIsNewOfAKnownPrefix) {
  for (const bool ahead : {false, true}) {
    Driver driver({.ahead = ahead});
    GenerationRequest first = request(20, 6, 3);
    const std::vector<GenerationOutput> made = driver.decode({first});
    EXPECT_EQ(made[0].reused_tokens, 0);
    GenerationRequest second = first;
    second.input_ids.insert(second.input_ids.end(), made[0].output_ids.begin(),
                            made[0].output_ids.end());
    second.input_ids.push_back(1);
    // The last new token was never fed back.
    const auto known = static_cast<int>(20 + made[0].output_ids.size() - 1);
    const auto turn = driver.decode({second});
    EXPECT_EQ(turn[0].reused_tokens, known);
    expect_right({second}, turn, 0);
    // The same prompt again: its last token always runs.
    EXPECT_EQ(driver.decode({second})[0].reused_tokens,
              static_cast<int>(second.input_ids.size()) - 1);
    second.sampling.prompt_logprobs = 0;
    const auto scored = driver.decode({second});
    EXPECT_EQ(scored[0].reused_tokens, 0);
    ASSERT_EQ(scored[0].prompt_logprobs.size(), second.input_ids.size() - 1);
    for (size_t i = 0; i + 1 < second.input_ids.size(); ++i)
      EXPECT_EQ(scored[0].prompt_logprobs[i].id, second.input_ids[i + 1]);
  }
}

TEST(DecodeBatch, AbandonedDecodesLeaveItUsable) {
  for (const bool ahead : {false, true}) {
    Driver driver({.ahead = ahead});
    for (int steps = 0; steps < 12; ++steps) {
      driver.decode({request(17, 20, 1), request(3, 20, 2)}, steps);
      const std::vector<GenerationRequest> requests = {request(17, 9, 1), request(30, 9, 4)};
      expect_right(requests, driver.decode(requests), 0);
    }
  }
}

// The first `length` tokens of one long text.
GenerationRequest beginning(int length) {
  GenerationRequest r = request(40, 6, 3);
  r.input_ids.resize(static_cast<size_t>(length));
  return r;
}

// Prompts of lengths around the limit, each beginning like the one before: what is reused was
// computed with the same frequencies, and all of that is reused.
TEST(DecodeBatch, ReusesOnlyKeysOfTheSameFrequencies) {
  for (const RopeRule rope : {RopeRule::kDynamic, RopeRule::kLongRope, RopeRule::kYarn}) {
    for (const bool ahead : {false, true}) {
      SCOPED_TRACE(str(ops::rope_rule_name(rope), " ahead ", ahead));
      Driver driver({.ahead = ahead, .rope = rope});
      int before = 0;
      for (const int length : {20, 24, 25, 25, 26, 24, 12, 40, 40, 39, 3, 30}) {
        SCOPED_TRACE(str(length, " tokens after ", before));
        // Four alike take all slots, so that no older prefix is left.
        const std::vector<GenerationRequest> all(kSequences, beginning(length));
        const std::vector<GenerationOutput> outputs = driver.decode(all);
        expect_right(all, outputs, 0, rope);
        const bool same = frequencies(rope, length) == frequencies(rope, before);
        for (const GenerationOutput& output : outputs)
          EXPECT_EQ(output.reused_tokens, same ? std::min(length - 1, before) : 0);
        before = length;
      }
    }
  }
}

TEST(DecodeBatch, FailedStepsEndADecodeAndLeaveNothingToReuse) {
  const std::vector<GenerationRequest> requests = {request(17, 9, 1), request(3, 9, 2)};
  for (const Fault fault : {Fault::kLaunch, Fault::kCollect, Fault::kNoToken}) {
    for (const bool ahead : {false, true}) {
      Driver driver({.ahead = ahead});
      for (int step = 0; step < 9; ++step) {
        SCOPED_TRACE(str("fault ", static_cast<int>(fault), " ahead ", ahead, " step ", step));
        driver.plant(fault, step);
        EXPECT_THROW(driver.decode(requests), Error);
        driver.plant(Fault::kNone, 0);
        expect_right(requests, driver.decode(requests), 0);
      }
    }
  }
}

// A stream that is given up may leave a step that fails: the next decode is none the wiser.
TEST(DecodeBatch, AbandonedStepsMayFail) {
  const std::vector<GenerationRequest> requests = {request(17, 9, 1), request(3, 9, 2)};
  for (const Fault fault : {Fault::kCollect, Fault::kNoToken}) {
    Driver driver({.ahead = true});
    for (int step = 1; step < 9; ++step) {
      SCOPED_TRACE(str("fault ", static_cast<int>(fault), " step ", step));
      driver.plant(fault, step);
      EXPECT_NO_THROW(driver.decode(requests, step));
      driver.plant(Fault::kNone, 0);
      expect_right(requests, driver.decode(requests), 0);
    }
  }
}

// The step ahead of a failed one fails for the same reason: its caller was told already.
TEST(DecodeBatch, WhatFollowsAFailedStepIsVoid) {
  const std::vector<GenerationRequest> requests = {request(17, 9, 1), request(3, 9, 2)};
  Driver driver({.ahead = true});
  for (int step = 0; step < 9; ++step) {
    SCOPED_TRACE(str("step ", step));
    driver.plant(Fault::kNoTokenAnyMore, step);
    EXPECT_THROW(driver.decode(requests), Error);
    EXPECT_NO_THROW(driver.finish());
    driver.plant(Fault::kNone, 0);
    expect_right(requests, driver.decode(requests), 0);
  }
}

TEST(DecodeBatch, BadRequestsChangeNothing) {
  Driver driver({});
  const GenerationRequest good = request(5, 4, 1);
  GenerationRequest outside = good, negative = good, many_logprobs = good;
  outside.input_ids[2] = kVocab;
  negative.input_ids[0] = -1;
  many_logprobs.sampling.logprobs = 6;  // set up for 5
  for (const auto& bad :
       std::vector<std::vector<GenerationRequest>>{{},
                                                   {good, outside},
                                                   {negative},
                                                   {many_logprobs},
                                                   {request(0, 4, 1)},
                                                   {request(41, 4, 1)},
                                                   {request(5, 25, 1)},
                                                   std::vector<GenerationRequest>(5, good)}) {
    EXPECT_THROW(driver.decode(bad), Error);
    expect_right({good}, driver.decode({good}), 0);
  }
}

TEST(DecodeBatch, StopTokensEndAndAreReported) {
  Driver driver({.ahead = true});
  GenerationRequest r = request(6, 10, 8);
  const std::vector<int32_t> free = expected(r, 0);
  ASSERT_GT(free.size(), 3U);
  r.sampling.stop_token_ids = {free[2]};
  const GenerationOutput output = driver.decode({r})[0];
  const auto end = std::find(free.begin(), free.end(), free[2]) + 1;
  EXPECT_EQ(output.output_ids, std::vector<int32_t>(free.begin(), end));
  EXPECT_EQ(output.finish_reason, FinishReason::kStop);
  EXPECT_EQ(output.stop_token_id, free[2]);
}

}  // namespace
}  // namespace millrace::runtime
