// The specification, in double.
#include <algorithm>
#include <cmath>

#include "ops/log_softmax/log_softmax_row.h"

namespace millrace::ops {

double log_sum_of_row(const float* x, int64_t vocab) {
  if (std::any_of(x, x + vocab, [](float v) { return std::isnan(v); })) return NAN;
  const double max = *std::max_element(x, x + vocab);
  if (std::isinf(max)) return NAN;
  double sum = 0;
  for (int64_t t = 0; t < vocab; ++t)
    sum += std::exp(x[t] - max);
  return max + std::log(sum);
}

void log_softmax_ref(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0), vocab = launch.in[0].dim(1);
  for (int64_t l = 0; l < rows; ++l) {
    const float* x = launch.in[0].as<float>() + l * vocab;
    float* out = launch.out[0].as<float>() + l * vocab;
    const double lse = log_sum_of_row(x, vocab);
    for (int64_t t = 0; t < vocab; ++t)
      out[t] = static_cast<float>(x[t] - lse);
  }
}

}  // namespace millrace::ops
