// The specification, in double.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/sample_logprobs/logprobs_io.h"

namespace millrace::ops {
namespace {

/// The logarithm of the sum of exponentials; NaN when the row has no probabilities.
double log_sum(const float* x, int64_t vocab) {
  if (std::any_of(x, x + vocab, [](float v) { return std::isnan(v); })) return NAN;
  const double max = *std::max_element(x, x + vocab);
  if (std::isinf(max)) return NAN;
  double sum = 0;
  for (int64_t t = 0; t < vocab; ++t)
    sum += std::exp(x[t] - max);
  return max + std::log(sum);
}

/// The best token after `previous` in the order of falling logits, rising tokens; -1: of all.
int32_t next_best(const float* x, int64_t vocab, int32_t previous) {
  int32_t best = -1;
  for (int32_t t = 0; t < vocab; ++t) {
    const bool is_after =
        previous < 0 || x[t] < x[previous] || (x[t] == x[previous] && t > previous);
    if (is_after && (best < 0 || x[t] > x[best])) best = t;
  }
  return best;
}

}  // namespace

void sample_logprobs_ref(const Launch& launch) {
  const LogprobsIo io(launch);
  for (int64_t l = 0; l < io.count; ++l) {
    io.clear(l, 0);
    if (!io.is_wanted(l)) continue;
    const double lse = log_sum(io.x(l), io.vocab);
    if (std::isnan(lse)) {
      io.clear(l, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    io.put_target(l, lse);
    int32_t token = -1;
    for (int64_t place = 0; place < io.wanted(l); ++place) {
      token = next_best(io.x(l), io.vocab, token);
      io.put_best(l, place, token, lse);
    }
  }
}

}  // namespace millrace::ops
