#include "ops/sample_token/sample_token.h"

#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "ops/common/sampling_math.h"
#include "ops/common/sampling_testing.h"
#include "ops/harness/op_call.h"
#include "ops/sample_token/select_ref.h"

namespace millrace::ops {
namespace {

using Json = nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kCapacity = 8;  // of the history, in the launches below

struct Result {
  std::vector<int32_t> tokens, status, history;
};

/// All rows in one launch; row l has slot l. Rows without kSamplingAdjusts read `logits`, the
/// others find theirs in `adjusted`.
Result choose(const std::vector<std::vector<float>>& x, std::vector<SamplingRow> rows,
              const std::string& tactic) {
  const int64_t count = std::ssize(x), vocab = std::ssize(x[0]);
  std::vector<float> logits, adjusted;
  for (size_t l = 0; l < x.size(); ++l) {
    const bool adjusts = (rows[l].flags & kSamplingAdjusts) != 0;
    const std::vector<float> poison(static_cast<size_t>(vocab), NAN);
    const auto& first = adjusts ? poison : x[l];
    const auto& second = adjusts ? x[l] : poison;
    logits.insert(logits.end(), first.begin(), first.end());
    adjusted.insert(adjusted.end(), second.begin(), second.end());
    if (rows[l].slot != -1) rows[l].slot = static_cast<int32_t>(l);
  }
  const std::vector<int32_t> history(static_cast<size_t>(count * kCapacity), -5);
  const auto out =
      call_op("sample_token", {},
              {host_ints({count, kCapacity}, history), host_floats({count, vocab}, logits),
               host_floats({count, vocab}, adjusted),
               host_ints({count, kSamplingRowWords}, row_words(rows))},
              tactic);
  return {out[1].ints(), out[2].ints(), out[0].ints()};
}

SamplingRow greedy_row() {
  SamplingRow row;
  row.slot = 0;
  return row;
}

SamplingRow drawn_row(uint64_t seed) {
  SamplingRow row = greedy_row();
  row.flags = kSamplingDraws;
  row.seed = seed;
  return row;
}

/// `count` draws from the same logits, at different positions.
std::vector<int32_t> draw_many(const std::vector<float>& x, const SamplingRow& row, int count,
                               const std::string& tactic) {
  std::vector<SamplingRow> rows(static_cast<size_t>(count), row);
  for (int i = 0; i < count; ++i)
    rows[static_cast<size_t>(i)].length = i;
  const std::vector<std::vector<float>> logits(rows.size(), x);
  const Result result = choose(logits, rows, tactic);
  EXPECT_EQ(std::count(result.status.begin(), result.status.end(), kSamplingOk), count);
  return result.tokens;
}

SamplingRow row_of(const Json& options) {
  SamplingRow row = drawn_row(1);
  row.temperature = options.value("temperature", 1.0f);
  row.top_k = options.value("top_k", 0);
  row.top_p = options.value("top_p", 1.0f);
  row.min_p = options.value("min_p", 0.0f);
  row.typical_p = options.value("typical_p", 1.0f);
  return row;
}

/// What the specification keeps.
std::vector<int32_t> kept_of(const std::vector<float>& x, const SamplingRow& row) {
  std::vector<float> scaled(x.size()), weight(x.size());
  std::vector<int32_t> order(x.size());
  const auto kept =
      select_ref(x.data(), std::ssize(x), row, {scaled.data(), weight.data(), order.data()});
  return {kept.begin(), kept.end()};
}

Json warper_goldens() {
  return parse_json_file(MILLRACE_SOURCE_DIR "/tests/data/sampling/warpers.json").at("cases");
}

std::vector<float> logits_of(const Json& golden) {
  return golden_logits(golden["seed"], golden["vocab"], golden["spread"], golden["grid"]);
}

/// Tokens too improbable to be drawn may be missing from ours.
bool agrees(const std::vector<int32_t>& ours, const std::vector<int32_t>& theirs,
            const std::vector<float>& x, float temperature) {
  const float max = *std::max_element(x.begin(), x.end());
  std::vector<int32_t> drawable;
  for (const int32_t t : theirs) {
    const float y = x[static_cast<size_t>(t)] / temperature - max / temperature;
    if (weight_units(sampling_exp(y)) > 0 || ours.size() == theirs.size()) drawable.push_back(t);
  }
  return ours == theirs || ours == drawable;
}

TEST(SampleToken, KeepsWhatTransformersKeeps) {
  const Json goldens = warper_goldens();
  ASSERT_GT(goldens.size(), 250u);
  for (size_t i = 0; i < goldens.size(); ++i) {
    const std::vector<float> x = logits_of(goldens[i]);
    const SamplingRow row = row_of(goldens[i]["options"]);
    const auto want = goldens[i]["kept"].get<std::vector<int32_t>>();
    EXPECT_TRUE(agrees(kept_of(x, row), want, x, row.temperature))
        << "case " << i << ": " << goldens[i]["options"] << " keeps "
        << testing::PrintToString(kept_of(x, row)) << ", wanted " << testing::PrintToString(want);
  }
}

// The tactics that do not sort choose the token of the one that does, on every recorded row and
// draw.
TEST(SampleToken, TacticsChooseTheSameTokens) {
  for (const Json& golden : warper_goldens()) {
    const std::vector<float> x = logits_of(golden);
    const SamplingRow row = row_of(golden["options"]);
    const int draws = x.size() > 1000 ? 6 : 40;
    const auto want = draw_many(x, row, draws, "sample_token_ref");
    for (const std::string& tactic : cpu_tactics("sample_token")) {
      EXPECT_EQ(draw_many(x, row, draws, tactic), want) << tactic << " " << golden["options"];
    }
  }
}

/// Probabilities of the kept tokens in double, as the definition of softmax has them.
std::vector<double> distribution(const std::vector<float>& x, const std::vector<int32_t>& kept,
                                 double temperature) {
  std::vector<double> p(x.size(), 0);
  double sum = 0;
  for (const int32_t t : kept) {
    const auto i = static_cast<size_t>(t);
    p[i] = std::exp(x[i] / temperature);
    sum += p[i];
  }
  for (double& value : p)
    value /= sum;
  return p;
}

/// P(chi-square with `freedom` degrees > `value`): the regularised upper incomplete gamma function,
/// by its series.
double chi_square_tail(double value, double freedom) {
  const double a = freedom / 2, x = value / 2;
  double term = 1 / a, sum = term;
  for (int n = 1; n < 10000 && term > 1e-16 * sum; ++n) {
    term *= x / (a + n);
    sum += term;
  }
  return 1 - sum * std::exp(-x + a * std::log(x) - std::lgamma(a));
}

/// The probability that a right sampler strays as far; tokens expected less than 8 times are one
/// class.
double p_value(const std::vector<int32_t>& draws, const std::vector<double>& p) {
  std::vector<double> seen(p.size(), 0);
  for (const int32_t token : draws)
    ++seen[static_cast<size_t>(token)];
  const auto n = static_cast<double>(draws.size());
  double value = 0, rest_seen = 0, rest_expected = 0, freedom = -1;
  const auto add = [&](double observed, double expected) {
    value += (observed - expected) * (observed - expected) / expected;
    ++freedom;
  };
  for (size_t t = 0; t < p.size(); ++t) {
    if (p[t] == 0) {
      EXPECT_EQ(seen[t], 0) << "token " << t << " is not among those kept";
    } else if (n * p[t] < 8) {
      rest_seen += seen[t];
      rest_expected += n * p[t];
    } else {
      add(seen[t], n * p[t]);
    }
  }
  if (rest_expected > 2) add(rest_seen, rest_expected);
  return freedom < 1 ? 1 : chi_square_tail(value, freedom);
}

TEST(SampleToken, ChiSquareTailIsRight) {  // textbook quantiles
  EXPECT_NEAR(chi_square_tail(3.841459, 1), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(18.307038, 10), 0.05, 1e-6);
  EXPECT_NEAR(chi_square_tail(135.806723, 100), 0.01, 1e-6);
}

TEST(SampleToken, DrawsFollowTheDistribution) {
  std::vector<double> p_values;
  const std::string tactic = cpu_tactics("sample_token")[0];
  for (int configuration = 0; configuration < 32; ++configuration) {
    SamplingRow row = drawn_row(static_cast<uint64_t>(configuration) * 977);
    const int kind = configuration % 8;
    row.temperature = std::vector{1.0f, 0.6f, 1.4f, 0.9f}[static_cast<size_t>(configuration / 8)];
    if (kind == 1 || kind == 6) row.top_k = 7;
    if (kind == 2 || kind == 6) row.top_p = 0.8f;
    if (kind == 3 || kind == 7) row.min_p = 0.05f;
    if (kind == 4 || kind == 7) row.typical_p = 0.7f;
    if (kind == 5) row.output_index = 3;
    const int64_t vocab = 20 + 9 * configuration;
    const auto x = golden_logits(configuration, vocab, 8, configuration % 3 == 0 ? 2 : 0);
    const auto draws = draw_many(x, row, 6000, tactic);
    p_values.push_back(p_value(draws, distribution(x, kept_of(x, row), row.temperature)));
    EXPECT_GT(p_values.back(), 1e-4) << "configuration " << configuration;
  }
  // The p-values themselves are uniform: their mean has a deviation of 0.05.
  const double mean = std::accumulate(p_values.begin(), p_values.end(), 0.0) / 32;
  EXPECT_NEAR(mean, 0.5, 0.2);
}

// The test above must be able to fail: the same draws against a slightly warmer distribution.
TEST(SampleToken, ChiSquareSeesAWrongTemperature) {
  const auto x = golden_logits(3, 60, 8, 0);
  SamplingRow row = drawn_row(5);
  const auto draws = draw_many(x, row, 6000, cpu_tactics("sample_token")[0]);
  EXPECT_LT(p_value(draws, distribution(x, kept_of(x, row), 1.1)), 1e-4);
}

TEST(SampleToken, GreedyTakesTheLowestOfEquals) {
  for (const std::string& tactic : cpu_tactics("sample_token")) {
    for (const int64_t vocab : {1, 5, 64, 65, 130, 40000}) {
      auto x = golden_logits(vocab, vocab, 8, 0);
      const auto first = static_cast<size_t>(vocab / 3), second = static_cast<size_t>(vocab - 1);
      x[first] = x[second] = 9.5f;
      const Result result = choose({x}, {greedy_row()}, tactic);
      EXPECT_EQ(result.tokens[0], static_cast<int32_t>(first)) << tactic << " " << vocab;
      EXPECT_EQ(result.status[0], kSamplingOk);
    }
  }
}

TEST(SampleToken, AppendsToTheHistory) {
  for (const std::string& tactic : cpu_tactics("sample_token")) {
    std::vector<SamplingRow> rows(4, greedy_row());
    rows[0].length = 3;
    rows[1].slot = -1;           // padding
    rows[2].length = kCapacity;  // no room: nothing may be written
    rows[3].flags = kSamplingDraws | kSamplingAdjusts;
    rows[3].top_p = 0;
    const std::vector<float> x = {0, 4, 1};
    const Result result = choose({x, x, x, x}, rows, tactic);
    EXPECT_EQ(result.tokens, (std::vector<int32_t>{1, 0, 1, 1})) << tactic;
    EXPECT_EQ(result.status, (std::vector<int32_t>{0, 0, 0, 0}));
    std::vector<int32_t> want(4 * kCapacity, -5);
    want[3] = 1;
    want[3 * kCapacity] = 1;
    EXPECT_EQ(result.history, want) << tactic;
  }
}

TEST(SampleToken, ReportsWhatCannotBeChosen) {
  for (const std::string& tactic : cpu_tactics("sample_token")) {
    for (const bool draws : {false, true}) {
      const SamplingRow row = draws ? drawn_row(1) : greedy_row();
      std::vector<float> good(70, 1.0f), nan(good), infinite(good);
      std::vector<float> masked(70, -kInfinity), one(masked);
      good[69] = 90;
      nan[68] = NAN;
      infinite[3] = kInfinity;
      one[69] = -30;
      const Result result =
          choose({good, nan, infinite, masked, one}, std::vector<SamplingRow>(5, row), tactic);
      EXPECT_EQ(result.status,
                (std::vector<int32_t>{kSamplingOk, kSamplingNotFinite, kSamplingNotFinite,
                                      kSamplingNoCandidate, kSamplingOk}))
          << tactic;
      EXPECT_EQ(result.tokens, (std::vector<int32_t>{69, 0, 0, 0, 69})) << tactic;
      EXPECT_EQ(result.history[kCapacity], 0) << "the next step reads a token that exists";
    }
  }
}

TEST(SampleToken, LimitsAfterAMaskKeepTheOnlyToken) {
  for (const std::string& tactic : cpu_tactics("sample_token")) {
    SamplingRow row = drawn_row(1);
    row.top_k = 5;
    row.top_p = 0.5f;
    row.min_p = 0.5f;
    row.typical_p = 0.2f;
    std::vector<float> one(100, -kInfinity);
    one[42] = -7;
    EXPECT_EQ(choose({one}, {row}, tactic).tokens[0], 42) << tactic;
  }
}

/// Rows of every kind over 300 tokens, the vocabulary wide and narrow.
std::vector<SamplingRow> mixed_rows(int count) {
  std::vector<SamplingRow> rows;
  for (int l = 0; l < count; ++l) {
    SamplingRow row = l % 4 == 0 ? greedy_row() : drawn_row(static_cast<uint64_t>(l) << 33 | 7);
    row.output_index = l % 3;
    row.length = l % kCapacity;
    row.temperature = 0.5f + 0.1f * static_cast<float>(l % 9);
    if (l % 5 == 1) row.top_k = 1 + 3 * l;
    if (l % 3 == 1) row.top_p = 0.9f;
    if (l % 7 == 2) row.min_p = 0.01f;
    if (l % 6 == 5) row.typical_p = 0.8f;
    if (l % 2 == 1) row.flags |= kSamplingAdjusts;
    rows.push_back(row);
  }
  return rows;
}

TEST(SampleToken, RowsDoNotSeeEachOther) {
  const auto rows = mixed_rows(40);
  std::vector<std::vector<float>> x;
  for (size_t l = 0; l < rows.size(); ++l)
    x.push_back(golden_logits(static_cast<int64_t>(l), 20011, 16, l % 2 == 0 ? 3 : 0));
  for (const std::string& tactic : cpu_tactics("sample_token")) {
    const Result together = choose(x, rows, tactic);
    EXPECT_EQ(choose(x, rows, tactic).tokens, together.tokens) << "twice, " << tactic;
    for (size_t l = 0; l < rows.size(); l += 3) {
      EXPECT_EQ(choose({x[l]}, {rows[l]}, "sample_token_ref").tokens[0], together.tokens[l])
          << tactic << " " << l;
    }
  }
}

// Hard shapes for the search: flat rows (everything competes), k around the number of blocks, one
// value many times.
TEST(SampleToken, TacticsAgreeOnHardRows) {
  std::vector<std::vector<float>> x = {
      golden_logits(1, 5000, 0.01, 0), golden_logits(2, 5000, 64, 0), golden_logits(3, 5000, 4, 1),
      std::vector<float>(5000, -3.25f), golden_logits(4, 5000, 4096, 0)};
  for (size_t t = 0; t < 5000; ++t)
    x[1][t] = t % 3 == 0 ? -kInfinity : x[1][t];
  for (const auto& logits : x) {
    for (const int k : {0, 2, 78, 79, 80, 4999, 5000}) {
      for (const float p : {1.0f, 0.999f, 0.5f, 0.0f}) {
        SamplingRow row = drawn_row(static_cast<uint64_t>(k));
        row.top_k = k;
        row.top_p = p;
        row.typical_p = k == 79 ? 0.6f : 1.0f;
        row.min_p = k == 80 ? 0.3f : 0.0f;
        const auto want = draw_many(logits, row, 4, "sample_token_ref");
        for (const std::string& tactic : cpu_tactics("sample_token")) {
          EXPECT_EQ(draw_many(logits, row, 4, tactic), want) << tactic << " " << k << " " << p;
        }
      }
    }
  }
}

}  // namespace
}  // namespace millrace::ops
