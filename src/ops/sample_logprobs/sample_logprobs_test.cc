#include "ops/sample_logprobs/sample_logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "ops/common/sampling_testing.h"
#include "ops/harness/op_call.h"

namespace millrace::ops {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Result {
  std::vector<float> logprobs;
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;
};

Result logprobs(const std::vector<float>& x, int64_t rows, const std::vector<int32_t>& targets,
                const std::vector<int32_t>& counts, int k, const std::string& tactic) {
  const auto out = call_op("sample_logprobs", to_attrs(SampleLogprobs{.k = k}),
                           {host_floats({rows, std::ssize(x) / rows}, x),
                            host_ints({rows}, targets), host_ints({rows}, counts)},
                           tactic);
  return {out[0].floats(), out[1].ints(), out[2].floats()};
}

/// log softmax by its definition, in long double.
std::vector<double> exact(const std::vector<float>& x) {
  long double sum = 0;
  for (const float value : x)
    sum += std::exp(static_cast<long double>(value));
  std::vector<double> out;
  for (const float value : x)
    out.push_back(static_cast<double>(value - std::log(sum)));
  return out;
}

TEST(SampleLogprobs, AsTheDefinition) {
  for (const std::string& tactic : cpu_tactics("sample_logprobs")) {
    for (const int64_t vocab : {1, 3, 64, 97, 1000, 33001}) {
      for (const double spread : {0.25, 8.0, 64.0}) {
        const auto x = golden_logits(vocab, vocab, spread, vocab == 1000 ? 2 : 0);
        const auto want = exact(x);
        const auto target = static_cast<int32_t>(vocab / 2);
        const int k = static_cast<int>(std::min<int64_t>(vocab, 20));
        const Result got = logprobs(x, 1, {target}, {k}, 20, tactic);
        EXPECT_NEAR(got.logprobs[0], want[static_cast<size_t>(target)], 1e-6 * (1 + 2 * spread));
        std::vector<int32_t> order(x.size());
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
          const float xa = x[static_cast<size_t>(a)], xb = x[static_cast<size_t>(b)];
          return xa > xb || (xa == xb && a < b);
        });
        for (size_t place = 0; place < 20; ++place) {
          if (place >= static_cast<size_t>(k)) {
            EXPECT_EQ(got.top_ids[place], -1);
            EXPECT_EQ(got.top_logprobs[place], 0);
            continue;
          }
          EXPECT_EQ(got.top_ids[place], order[place]) << tactic << " place " << place;
          EXPECT_NEAR(got.top_logprobs[place], want[static_cast<size_t>(order[place])],
                      1e-6 * (1 + 2 * spread));
        }
      }
    }
  }
}

TEST(SampleLogprobs, RowsThatNobodyWants) {
  const std::vector<float> x = {1, 2, 3, 1, 2, 3, 1, 2, 3};
  for (const std::string& tactic : cpu_tactics("sample_logprobs")) {
    const Result got = logprobs(x, 3, {0, 1, 77}, {-1, 0, 1}, 2, tactic);
    EXPECT_EQ(got.logprobs[0], 0);
    EXPECT_NEAR(got.logprobs[1], -1.4076059644443804, 1e-6);
    EXPECT_EQ(got.logprobs[2], 0) << "no such token";
    EXPECT_EQ(got.top_ids, (std::vector<int32_t>{-1, -1, -1, -1, 2, -1}));
    EXPECT_EQ(got.top_logprobs[2], 0);
    EXPECT_NEAR(got.top_logprobs[4], -0.4076059644443804, 1e-6);
  }
}

TEST(SampleLogprobs, MaskedTokensAndRowsWithoutProbabilities) {
  const std::vector<float> x = {-kInfinity, 0, -kInfinity, NAN,        0,          1,
                                kInfinity,  1, 2,          -kInfinity, -kInfinity, -kInfinity};
  for (const std::string& tactic : cpu_tactics("sample_logprobs")) {
    const Result got = logprobs(x, 4, {0, 1, 1, 1}, {2, 1, 1, 1}, 2, tactic);
    EXPECT_EQ(got.logprobs[0], -kInfinity);
    EXPECT_EQ(got.top_ids[0], 1);
    EXPECT_EQ(got.top_logprobs[0], 0);
    EXPECT_EQ(got.top_ids[1], 0);
    EXPECT_EQ(got.top_logprobs[1], -kInfinity);
    for (size_t l = 1; l < 4; ++l) {
      EXPECT_TRUE(std::isnan(got.logprobs[l])) << tactic << " " << l;
      EXPECT_TRUE(std::isnan(got.top_logprobs[2 * l]));
      EXPECT_EQ(got.top_ids[2 * l], -1);
    }
  }
}

}  // namespace
}  // namespace millrace::ops
