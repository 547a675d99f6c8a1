#include "runtime/decode_batch.h"

#include <algorithm>
#include <deque>
#include <map>

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

// Keeps "K and V" (the token itself) in blocks and computes the next token from what the batch's
// block tables lead to, so that a wrong block, position or reuse gives other tokens.
class FakeStepper : public Stepper {
 public:
  FakeStepper(bool ahead, int tokens_per_block, int window)
      : ahead_(ahead), block_(tokens_per_block), window_(window) {}

  int max_sequences() const override { return 4; }
  int max_num_tokens() const override { return 8; }
  bool runs_ahead() const override { return ahead_; }
  void begin_sequence(int slot, const SequenceOptions& options) override {
    (void)options;
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
    results_.push_back(std::move(result));
    EXPECT_LE(results_.size(), ahead_ ? 2U : 1U);
  }

  StepResult collect() override {
    StepResult result = std::move(results_.front());
    results_.pop_front();
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
    for (int i = s.past_length; i < end; ++i) {
      cell(i) = s.tokens.empty() ? chosen_[s.slot].at(i)
                                 : s.tokens[static_cast<size_t>(i - s.past_length)];
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
  std::map<int, std::map<int, int32_t>> chosen_;       // by slot and position
  std::map<std::pair<int32_t, int>, int32_t> stored_;  // by block and place in it
  std::deque<StepResult> results_;
};

struct Mode {
  bool ahead = false, padded = false;
  int block = 4, window = 0;
};

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
      : stepper_(setup.ahead, setup.block, setup.window),
        batch_({.batch_size = kSequences,
                .max_context_length = 40,
                .max_new_tokens = 24,
                .max_seq_len = kLength,
                .max_num_tokens = kStepTokens,
                .max_logprobs = 5,
                .vocab_size = kVocab,
                .padded = setup.padded},
               {{.kv_heads = 1, .k_size = 1, .v_size = 1, .window = setup.window, .layers = {}}},
               {KvBlocks(pool_blocks(setup), setup.block)}, {}) {}

  std::vector<GenerationOutput> decode(const std::vector<GenerationRequest>& requests,
                                       int steps = 1 << 20) {
    const std::vector<int> end = {kVocab - 1};
    while (under_way_ > 0)
      take();
    batch_.begin(requests, end, {}, stepper_);
    while (steps-- > 0) {
      while (under_way_ < (stepper_.runs_ahead() ? 2 : 1) && !batch_.done()) {
        const Batch* next = batch_.next_batch();
        if (next == nullptr) break;
        stepper_.launch(*next);
        ++under_way_;
      }
      if (under_way_ == 0) break;
      take();
    }
    return batch_.outputs();
  }
  int rows() const { return stepper_.rows(); }

 private:
  void take() {
    --under_way_;
    batch_.absorb(stepper_.collect());
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
std::vector<int32_t> expected(const GenerationRequest& r, int window) {
  std::vector<int32_t> all = r.input_ids, made;
  while (static_cast<int>(made.size()) < *r.sampling.max_new_tokens) {
    const auto first =
        window > 0 && static_cast<int>(all.size()) > window ? all.end() - window : all.begin();
    made.push_back(next_of({first, all.end()}));
    all.push_back(made.back());
    if (made.back() == kVocab - 1) break;
  }
  return made;
}

void expect_right(const std::vector<GenerationRequest>& requests,
                  const std::vector<GenerationOutput>& outputs, int window) {
  ASSERT_EQ(outputs.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> ids = expected(requests[i], window);
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
