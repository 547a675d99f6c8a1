#include "ops/common/norm_exact.h"

#include <cmath>

namespace millrace::ops {
namespace {

double mean_square(ExactRow x, int64_t width, double mean) {
  double squares = 0;
  for (int64_t k = 0; k < width; ++k)
    squares += (x(k) - mean) * (x(k) - mean);
  return squares / static_cast<double>(width);
}

}  // namespace

double exact_rms_norm(ExactRow x, int64_t width, double eps, int64_t i) {
  return x(i) / std::sqrt(mean_square(x, width, 0) + eps);
}

double exact_layer_norm(ExactRow x, int64_t width, double eps, int64_t i) {
  double mean = 0;
  for (int64_t k = 0; k < width; ++k)
    mean += x(k) / static_cast<double>(width);
  return (x(i) - mean) / std::sqrt(mean_square(x, width, mean) + eps);
}

}  // namespace millrace::ops
