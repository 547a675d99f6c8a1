#include "millrace/sampling.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "millrace/error.h"
#include "ops/common/sampling_row.h"

namespace millrace {
namespace {

/// The message of the Error, or "" when the parameters pass.
std::string fault(const std::function<void(SamplingParams&)>& change) {
  SamplingParams params;
  change(params);
  try {
    params.validate(100);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_FALSE(error.advice().empty());
    return error.message();
  }
  return "";
}

TEST(SamplingParams, DefaultsPass) {
  EXPECT_EQ(fault([](SamplingParams&) {}), "");
}

TEST(SamplingParams, EdgesPass) {
  EXPECT_EQ(fault([](SamplingParams& p) {
              p.temperature = 0;
              p.top_p = 0;
              p.min_p = 1;
              p.typical_p = 1;
              p.presence_penalty = -2;
              p.frequency_penalty = 2;
              p.logit_bias = {{0, -100.0f}, {99, 100.0f}};
              p.logprobs = 0;
              p.prompt_logprobs = 20;
              p.min_new_tokens = p.max_new_tokens.emplace(3);
            }),
            "");
}

TEST(SamplingParams, FaultsNameTheField) {
  using P = SamplingParams;
  EXPECT_EQ(fault([](P& p) { p.temperature = -0.5; }), "temperature is -0.5");
  EXPECT_EQ(fault([](P& p) { p.temperature = INFINITY; }), "temperature is inf");
  EXPECT_EQ(fault([](P& p) { p.top_k = -1; }), "top_k is -1");
  EXPECT_EQ(fault([](P& p) { p.top_p = 1.5; }), "top_p is 1.5");
  EXPECT_EQ(fault([](P& p) { p.top_p = NAN; }), "top_p is nan");
  EXPECT_EQ(fault([](P& p) { p.min_p = -0.1; }), "min_p is -0.1");
  EXPECT_EQ(fault([](P& p) { p.typical_p = 0; }), "typical_p is 0");
  EXPECT_EQ(fault([](P& p) { p.repetition_penalty = 0; }), "repetition_penalty is 0");
  EXPECT_EQ(fault([](P& p) { p.presence_penalty = 2.5; }), "presence_penalty is 2.5");
  EXPECT_EQ(fault([](P& p) { p.frequency_penalty = -3; }), "frequency_penalty is -3");
  EXPECT_EQ(fault([](P& p) { p.no_repeat_ngram_size = -2; }), "no_repeat_ngram_size is -2");
  EXPECT_EQ(fault([](P& p) { p.min_new_tokens = -1; }), "min_new_tokens is -1");
  EXPECT_EQ(fault([](P& p) { p.max_new_tokens = -1; }), "max_new_tokens is -1");
  EXPECT_EQ(fault([](P& p) {
              p.min_new_tokens = 5;
              p.max_new_tokens = 4;
            }),
            "min_new_tokens is 5, more than max_new_tokens, 4");
  EXPECT_EQ(fault([](P& p) { p.logprobs = 21; }), "logprobs is 21");
  EXPECT_EQ(fault([](P& p) { p.prompt_logprobs = -1; }), "prompt_logprobs is -1");
  EXPECT_EQ(fault([](P& p) { p.stop = {"a", ""}; }), "stop has an empty text");
}

TEST(SamplingParams, FaultyTokensNameTheField) {
  using P = SamplingParams;
  EXPECT_EQ(fault([](P& p) { p.logit_bias = {{100, 1.0f}}; }), "logit_bias has the token id 100");
  EXPECT_EQ(fault([](P& p) { p.logit_bias = {{3, 101.0f}}; }), "logit_bias is 101");
  EXPECT_EQ(fault([](P& p) { p.logit_bias = {{3, 1.0f}, {2, 1.0f}, {3, 2.0f}}; }),
            "logit_bias has the token id 3 twice");
  EXPECT_EQ(fault([](P& p) { p.bad_words = {{1}, {}}; }), "bad_words has an empty word");
  EXPECT_EQ(fault([](P& p) { p.bad_words = {{1, -7}}; }), "bad_words has the token id -7");
  EXPECT_EQ(fault([](P& p) { p.suppress_tokens = {100}; }), "suppress_tokens has the token id 100");
  EXPECT_EQ(fault([](P& p) { p.begin_suppress_tokens = {-1}; }),
            "begin_suppress_tokens has the token id -1");
  EXPECT_EQ(fault([](P& p) { p.forced_bos_token_id = 100; }),
            "forced_bos_token_id has the token id 100");
  EXPECT_EQ(fault([](P& p) { p.forced_eos_token_ids = {1, 100}; }),
            "forced_eos_token_ids has the token id 100");
  EXPECT_EQ(fault([](P& p) { p.end_token_ids = std::vector{100}; }),
            "end_token_ids has the token id 100");
  EXPECT_EQ(fault([](P& p) { p.stop_token_ids = {100}; }), "stop_token_ids has the token id 100");
  EXPECT_EQ(fault([](P& p) {
              p.forced_bos_token_id = 4;
              p.suppress_tokens = {3, 4};
            }),
            "forced_bos_token_id 4 is in suppress_tokens");
  EXPECT_EQ(fault([](P& p) {
              p.forced_eos_token_ids = {4, 5};
              p.suppress_tokens = {5, 4};
            }),
            "forced_eos_token_ids 4, 5 is in suppress_tokens");
  EXPECT_EQ(fault([](P& p) {
              p.forced_eos_token_ids = {4, 5};
              p.suppress_tokens = {5};
            }),
            "");
}

TEST(PackSampling, GreedyAndDrawn) {
  using ops::kSamplingDraws;
  const auto flags = [](double temperature, int top_k, bool do_sample) {
    SamplingParams p;
    p.temperature = temperature;
    p.top_k = top_k;
    p.do_sample = do_sample;
    return ops::pack_sampling(p, {}).row.flags;
  };
  EXPECT_EQ(flags(1, 0, false), 0);
  EXPECT_EQ(flags(1, 0, true), kSamplingDraws);
  EXPECT_EQ(flags(0, 0, true), 0);
  EXPECT_EQ(flags(1e-6, 0, true), 0);
  EXPECT_EQ(flags(1, 1, true), 0);
}

TEST(PackSampling, AdjustsOnlyWhereSomethingActs) {
  const auto adjusts = [](const std::function<void(SamplingParams&)>& change, int length) {
    SamplingParams params;
    change(params);
    const std::vector<int> end = {2};
    const auto packed =
        ops::pack_sampling(params, {.prompt_length = 4, .max_new_tokens = 6, .end_token_ids = end});
    return (ops::sampling_row_at(packed, 0, length, 0).flags & ops::kSamplingAdjusts) != 0;
  };
  using P = SamplingParams;
  EXPECT_FALSE(adjusts([](P&) {}, 4));
  EXPECT_TRUE(adjusts([](P& p) { p.repetition_penalty = 1.1; }, 4));
  EXPECT_FALSE(adjusts([](P& p) { p.presence_penalty = 1; }, 4));
  EXPECT_TRUE(adjusts([](P& p) { p.presence_penalty = 1; }, 5));
  EXPECT_TRUE(adjusts([](P& p) { p.min_new_tokens = 2; }, 5));
  EXPECT_FALSE(adjusts([](P& p) { p.min_new_tokens = 2; }, 6));
  EXPECT_FALSE(adjusts(
      [](P& p) {
        p.min_new_tokens = 2;
        p.ignore_eos = true;
      },
      5));
  EXPECT_TRUE(adjusts([](P& p) { p.begin_suppress_tokens = {1}; }, 4));
  EXPECT_FALSE(adjusts([](P& p) { p.begin_suppress_tokens = {1}; }, 5));
  EXPECT_FALSE(adjusts([](P& p) { p.forced_eos_token_ids = {2}; }, 8));
  EXPECT_TRUE(adjusts([](P& p) { p.forced_eos_token_ids = {2}; }, 9));
}

TEST(PackSampling, ListsMoveWithTheirOffset) {
  SamplingParams params;
  params.suppress_tokens = {7, 8};
  params.bad_words = {{1, 2}, {2}, {5}};
  const std::vector<int> end = {2};
  const auto packed = ops::pack_sampling(params, {.prompt_length = 3, .end_token_ids = end});
  EXPECT_EQ(packed.lists, (std::vector<int32_t>{2, 1, 2, 1, 5, 7, 8}));
  const auto row = ops::sampling_row_at(packed, 6, 9, 100);
  EXPECT_EQ(row.slot, 6);
  EXPECT_EQ(row.length, 9);
  EXPECT_EQ(row.bad_words.offset, 100);
  EXPECT_EQ(row.bad_words.count, 5);
  EXPECT_EQ(row.suppress.offset, 105);
  EXPECT_EQ(row.suppress.count, 2);
}

}  // namespace
}  // namespace millrace
