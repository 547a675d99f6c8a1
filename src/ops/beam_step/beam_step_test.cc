#include "ops/beam_step/beam_step.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "ops/common/beam_row.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;
using Ints = std::vector<int32_t>;
using Floats = std::vector<float>;

/// One request with its first slot 0.
struct Request {
  int k = 2;
  Floats scores;
  std::vector<Floats> rows;  // one, or k
  Ints end_ids;
  std::vector<bool> adjusts = {};  // rows that are in `adjusted`
};

struct Result {
  Floats scores, chosen;
  Ints parents, tokens, status;
};

Result step(const Request& r, const std::string& tactic) {
  const auto count = std::ssize(r.rows), vocab = std::ssize(r.rows[0]);
  Floats plain, adjusted;
  std::vector<SamplingRow> records(r.rows.size());
  for (size_t l = 0; l < r.rows.size(); ++l) {
    const bool adjusts = l < r.adjusts.size() && r.adjusts[l];
    records[l].flags = adjusts ? kSamplingAdjusts : 0;
    const Floats junk(r.rows[l].size(), 1e6F);
    const Floats& in_plain = adjusts ? junk : r.rows[l];
    const Floats& in_adjusted = adjusts ? r.rows[l] : junk;
    plain.insert(plain.end(), in_plain.begin(), in_plain.end());
    adjusted.insert(adjusted.end(), in_adjusted.begin(), in_adjusted.end());
  }
  Ints lists = {77};
  lists.insert(lists.end(), r.end_ids.begin(), r.end_ids.end());
  const Ints record = {
      0, 0, static_cast<int32_t>(count), 5, 3, 1, static_cast<int32_t>(r.end_ids.size()), 0};
  const auto out =
      call_op("beam_step", to_attrs(BeamStep{.beams = r.k}),
              {host_floats({r.k}, r.scores), host_floats({count, vocab}, plain),
               host_floats({count, vocab}, adjusted),
               host_ints({count, kSamplingRowWords}, row_words(records)),
               host_ints({1, kBeamRowWords}, record), host_ints({std::ssize(lists)}, lists)},
              tactic);
  return {out[0].floats(), out[1].floats(), out[2].ints(), out[3].ints(), out[4].ints()};
}

TEST(BeamStep, ChoosesAmongAllBeams) {
  const Request r{.k = 2,
                  .scores = {-1, -2},
                  .rows = {{-5, -1, -3, -9}, {-0.5F, -4, -0.25F, -9}},
                  .end_ids = {2}};
  for (const std::string& tactic : cpu_tactics("beam_step")) {
    const Result got = step(r, tactic);
    EXPECT_EQ(got.chosen, (Floats{-2, -2.5F, -2, -2.25F})) << tactic;
    EXPECT_EQ(got.parents, (Ints{0, 1, 0, 1})) << tactic;
    EXPECT_EQ(got.tokens, (Ints{1, 0, 1, 2})) << tactic << ": the last one ends";
    EXPECT_EQ(got.scores, (Floats{-2, -2.5F})) << tactic;
    EXPECT_EQ(got.status, (Ints{kSamplingOk})) << tactic;
  }
}

TEST(BeamStep, BehindThePromptOnlyTheFirstBeamCounts) {
  const Request r{.k = 3, .scores = {7, 8, 9}, .rows = {{-1, -3, -2, -0.5F}}, .end_ids = {}};
  for (const std::string& tactic : cpu_tactics("beam_step")) {
    const Result got = step(r, tactic);
    EXPECT_EQ(got.chosen, (Floats{-0.5F, -1, -2, -0.5F, -1, -2})) << tactic;
    EXPECT_EQ(got.parents, Ints(6, 0)) << tactic;
    EXPECT_EQ(got.tokens, (Ints{3, 0, 2, 3, 0, 2})) << tactic;
  }
}

// One token is forced: the other beams are then those that transformers scores -1e9.
TEST(BeamStep, AForcedFirstToken) {
  const float masked = -INFINITY;
  const Request r{
      .k = 2, .scores = {0, 0}, .rows = {{masked, 0, masked}}, .end_ids = {2}, .adjusts = {true}};
  for (const std::string& tactic : cpu_tactics("beam_step")) {
    const Result got = step(r, tactic);
    EXPECT_EQ(got.chosen, (Floats{0, -1e9F, 0, -1e9F})) << tactic;
    EXPECT_EQ(got.parents, (Ints{0, 1, 0, 1})) << tactic;
    EXPECT_EQ(got.tokens, Ints(4, 1)) << tactic;
  }
}

TEST(BeamStep, RowsAreThoseThatWereAdjusted) {
  const Request r{.k = 2,
                  .scores = {0, 0},
                  .rows = {{-1, -2, -3}, {-4, -5, -0.5F}},
                  .end_ids = {},
                  .adjusts = {false, true}};
  for (const std::string& tactic : cpu_tactics("beam_step"))
    EXPECT_EQ(step(r, tactic).chosen, (Floats{-0.5F, -1, -0.5F, -1})) << tactic;
}

TEST(BeamStep, SaysWhatIsWrong) {
  const float masked = -INFINITY;
  const Request all_masked{.k = 2, .scores = {0, 0}, .rows = {{masked, masked}}, .end_ids = {}};
  const Request not_a_number{
      .k = 2, .scores = {0, 0}, .rows = {{0, 1, 2}, {NAN, NAN, NAN}}, .end_ids = {}};
  for (const std::string& tactic : cpu_tactics("beam_step")) {
    EXPECT_EQ(step(all_masked, tactic).status[0], kSamplingNoCandidate) << tactic;
    EXPECT_EQ(step(not_a_number, tactic).status[0], kSamplingNotFinite) << tactic;
  }
}

/// Every continuation, sorted.
TEST(BeamStep, IsTheFirstOnesOfASortedList) {
  for (const auto& [k, vocab, grid] :
       {std::tuple{4, 50, 0}, {8, 5000, 0}, {3, 9000, 2}, {5, 7, 1}}) {
    Request r{.k = k, .scores = {}, .rows = {}, .end_ids = {1, 6}};
    for (int b = 0; b < k; ++b) {
      r.scores.push_back(-0.25F * static_cast<float>(b));
      r.rows.push_back(golden_logits(b + 1, vocab, 6, grid));
    }
    std::vector<std::pair<float, int32_t>> all, going_on;  // -score, b V + t
    for (int b = 0; b < k; ++b) {
      for (int t = 0; t < vocab; ++t) {
        const auto i = static_cast<size_t>(b);
        all.emplace_back(-(r.scores[i] + r.rows[i][static_cast<size_t>(t)]), b * vocab + t);
        if (t != 1 && t != 6) going_on.push_back(all.back());
      }
    }
    std::sort(all.begin(), all.end());
    std::sort(going_on.begin(), going_on.end());
    for (const std::string& tactic : cpu_tactics("beam_step")) {
      const Result got = step(r, tactic);
      for (int place = 0; place < 2 * k; ++place) {
        const auto at = static_cast<size_t>(place);
        const auto& [score, index] = place < k ? going_on[at] : all[at - static_cast<size_t>(k)];
        EXPECT_EQ(got.chosen[at], -score) << tactic << " " << place;
        EXPECT_EQ(got.parents[at] * vocab + got.tokens[at], index) << tactic << " " << place;
      }
    }
  }
}

TEST(BeamStep, RefusesWhatDoesNotFit) {
  const ir::TensorType scores{kF32, {"R"}}, x{kF32, {"L", 90}}, rows{kI32, {"L", 32}},
      beams{kI32, {"G", 8}}, lists{kI32, {"P"}};
  const auto types =
      infer_types("beam_step", {scores, x, x, rows, beams, lists}, to_attrs(BeamStep{.beams = 4}));
  ASSERT_EQ(types.size(), 5u);
  EXPECT_EQ(types[0], scores);
  EXPECT_EQ(types[1], (ir::TensorType{kF32, {"G", 8}}));
  EXPECT_EQ(refusal("beam_step", {scores, x, x, rows, {kI32, {"G", 7}}, lists},
                    to_attrs(BeamStep{.beams = 4})),
            "beams is i32[G, 7]; expected is the shape [G, 8] (beam_step)");
  EXPECT_EQ(
      refusal("beam_step", {scores, x, x, rows, beams, lists}, to_attrs(BeamStep{.beams = 65})),
      "beams is 65 (beam_step); use 2 to 64");
}

}  // namespace
}  // namespace millrace::ops
