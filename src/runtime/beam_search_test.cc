#include "runtime/beam_search.h"

#include <cmath>

#include <gtest/gtest.h>

namespace millrace::runtime {
namespace {

using Ids = std::vector<int32_t>;

constexpr int kEnd = 9, kStop = 8;

BeamSearch::Options two_beams(int max_new_tokens = 5) {
  return {.beams = 2, .max_new_tokens = max_new_tokens, .end_ids = {kEnd}, .stop_ids = {kStop}};
}

/// Beams of the next step, then the best of all.
BeamChoices choices(std::vector<float> scores, Ids parents, Ids tokens) {
  return {std::move(scores), std::move(parents), std::move(tokens)};
}

TEST(BeamSearch, FollowsParentsBack) {
  BeamSearch search(two_beams(3));
  search.absorb(choices({-1, -2, -1, -2}, {0, 0, 0, 0}, {1, 2, 1, 2}));
  search.absorb(choices({-2, -3, -2, -3}, {1, 0, 1, 0}, {3, 4, 3, 4}));
  EXPECT_FALSE(search.done());
  EXPECT_TRUE(search.outputs(2).empty());
  search.absorb(choices({-3, -4.5F, -3, -4.5F}, {1, 0, 1, 0}, {5, 6, 5, 6}));
  ASSERT_TRUE(search.done()) << "the limit";
  const auto outputs = search.outputs(2);
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[0].output_ids, (Ids{1, 4, 5}));
  EXPECT_EQ(outputs[1].output_ids, (Ids{2, 3, 6}));
  EXPECT_EQ(outputs[0].score, -1.0F) << "-3 / 3";
  EXPECT_EQ(outputs[1].score, -1.5F);
  EXPECT_EQ(outputs[0].finish_reason, FinishReason::kLength);
  EXPECT_EQ(search.outputs(1).size(), 1u);
}

TEST(BeamSearch, OnlyTheBestOfAllAreFinished) {
  BeamSearch search(two_beams());
  // The end token is second best of all: a hypothesis. A stop token further back would be none.
  search.absorb(choices({-1, -3, -1, -2}, {0, 0, 0, 0}, {1, 2, 1, kEnd}));
  search.absorb(choices({-1.5F, -3, -1.25F, -1.5F}, {0, 1, 0, 0}, {3, 4, kStop, 3}));
  const auto outputs = search.outputs(2);
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[0].output_ids, (Ids{1, kStop}));
  EXPECT_EQ(outputs[0].score, -0.625F);
  EXPECT_EQ(outputs[0].stop_token_id, kStop);
  EXPECT_EQ(outputs[1].output_ids, (Ids{kEnd}));
  EXPECT_EQ(outputs[1].score, -2.0F);
  EXPECT_EQ(outputs[1].finish_reason, FinishReason::kStop);
  EXPECT_EQ(outputs[1].stop_token_id, std::nullopt);
  EXPECT_FALSE(search.done()) << "-1.5 / 2 is better than -2";
}

/// Steps in which both beams end at once with `score` after `length` tokens; running beams follow
/// at `running`.
BeamSearch ended(BeamSearch::Options options, float score, float running) {
  BeamSearch search(std::move(options));
  search.absorb(choices({running, -50, score, score}, {0, 0, 0, 0}, {1, 2, kEnd, kStop}));
  return search;
}

TEST(BeamSearch, EndsWhenItIsToldTo) {
  EXPECT_TRUE(ended(two_beams(), -2, -3).done()) << "-3 / 1 is no better than -2";
  EXPECT_FALSE(ended(two_beams(), -2, -1).done());
  auto early = two_beams();
  early.early_stopping = EarlyStopping::kTrue;
  EXPECT_TRUE(ended(early, -2, -1).done()) << "as many finished as there are beams";
  auto never = two_beams();
  never.early_stopping = EarlyStopping::kNever;
  EXPECT_FALSE(ended(never, -2, -9).done()) << "-9 / 5 would be better";
  EXPECT_TRUE(ended(never, -2, -11).done());
  never.length_penalty = -1;  // longer is worse: the present length is the best
  EXPECT_TRUE(ended(never, -2, -9).done());
}

TEST(BeamSearch, PenalisesLength) {
  for (const double penalty : {0.0, 0.5, 2.0, -1.0}) {
    auto options = two_beams(4);
    options.length_penalty = penalty;
    BeamSearch search(options);
    for (int i = 0; i < 4; ++i)
      search.absorb(choices({-1, -2, -1, -2}, {0, 1, 0, 1}, {1, 2, 1, 2}));
    EXPECT_NEAR(search.outputs(1)[0].score, -1 / std::pow(4, penalty), 1e-6) << penalty;
  }
}

TEST(BeamSearch, NothingChangesAfterTheEnd) {
  BeamSearch search = ended(two_beams(), -2, -3);
  search.absorb(choices({-1, -1, -0.5F, -0.5F}, {0, 0, 0, 0}, {1, 2, kEnd, kEnd}));
  EXPECT_EQ(search.outputs(2)[0].score, -2.0F);
  EXPECT_EQ(search.length(), 1);
}

TEST(BeamSearch, PlacesWithoutAContinuationAreNone) {
  BeamSearch search(two_beams(1));
  search.absorb(choices({-1, -1e9F, -1, -INFINITY}, {0, 1, 0, 0}, {1, 1, 1, 0}));
  EXPECT_EQ(search.outputs(2).size(), 1u);
}

}  // namespace
}  // namespace millrace::runtime
