#include "ops/log_softmax/log_softmax.h"

#include <cmath>

#include <gtest/gtest.h>

#include "ops/common/sampling_testing.h"
#include "ops/harness/op_call.h"
#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

using enum ir::DType;

/// By its definition, in long double.
std::vector<double> definition(const std::vector<float>& x) {
  long double sum = 0;
  for (const float value : x)
    sum += std::exp(static_cast<long double>(value));
  std::vector<double> out;
  for (const float value : x)
    out.push_back(static_cast<double>(value - std::log(sum)));
  return out;
}

TEST(LogSoftmax, IsTheDefinition) {
  for (const std::string& tactic : cpu_tactics("log_softmax")) {
    for (const int64_t vocab : {1, 3, 64, 97, 1000, 33001}) {
      for (const double spread : {0.25, 8.0, 64.0}) {
        const auto x = golden_logits(vocab, vocab, spread, 0);
        const auto got =
            call_op("log_softmax", {}, {host_floats({1, vocab}, x)}, tactic)[0].floats();
        const auto want = definition(x);
        for (size_t t = 0; t < x.size(); ++t) {
          EXPECT_NEAR(got[t], want[t], 1e-6 * (1 + 2 * spread)) << tactic;
        }
      }
    }
  }
}

TEST(LogSoftmax, RowsWithoutProbabilitiesAreNaN) {
  const float inf = INFINITY;
  const std::vector<float> x = {0, NAN, 1, 0, inf, 1, -inf, -inf, -inf, -inf, 0, -inf};
  for (const std::string& tactic : cpu_tactics("log_softmax")) {
    const auto got = call_op("log_softmax", {}, {host_floats({4, 3}, x)}, tactic)[0].floats();
    for (size_t i = 0; i < 9; ++i)
      EXPECT_TRUE(std::isnan(got[i])) << tactic << " " << i;
    EXPECT_EQ(got[9], -inf);
    EXPECT_EQ(got[10], 0);
    EXPECT_EQ(got[11], -inf);
  }
}

TEST(LogSoftmax, RefusesWhatDoesNotFit) {
  EXPECT_EQ(infer_types("log_softmax", {{kF32, {"L", 9}}})[0], (ir::TensorType{kF32, {"L", 9}}));
  EXPECT_EQ(refusal("log_softmax", {{kBF16, {"L", 9}}}),
            "x is bf16[L, 9]; expected is f32 (log_softmax)");
}

}  // namespace
}  // namespace millrace::ops
