// What the reference kernels of attention share, in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/common/float_types.h"

namespace millrace::ops {

/// Four running sums: one would wait for itself.
template <typename T>
double dot_ref(const double* a, const T* b, int64_t size) {
  double sums[4] = {};
  int64_t d = 0;
  for (; d + 4 <= size; d += 4) {
    for (int64_t i = 0; i < 4; ++i)
      sums[i] += a[d + i] * double{widen(b[d + i])};
  }
  for (; d < size; ++d)
    sums[0] += a[d] * double{widen(b[d])};
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

/// The mean of vectors [size], weighted by the softmax of their logits: in the order they come, and
/// whenever a larger logit comes, what there is so far is scaled down.
class SoftmaxMean {
 public:
  /// `sink`: a logit without a vector; -infinity: none.
  SoftmaxMean(double* out, int64_t size, double sink = -INFINITY)
      : out_(out), size_(size), largest_(sink), total_(sink > -INFINITY ? 1 : 0) {
    std::fill_n(out, size, 0.0);
  }

  /// Of a vector that is stored in units of `scale`.
  template <typename T>
  void add(double logit, const T* vector, double scale = 1) {
    if (logit > largest_) {
      const double correction = std::exp(largest_ - logit);
      total_ *= correction;
      for (int64_t d = 0; d < size_; ++d)
        out_[d] *= correction;
      largest_ = logit;
    }
    const double p = std::exp(logit - largest_);
    total_ += p;
    for (int64_t d = 0; d < size_; ++d)
      out_[d] += p * scale * double{widen(vector[d])};
  }

  /// Until then `out` is the weighted sum.
  void divide() {
    for (int64_t d = 0; d < size_; ++d)
      out_[d] /= total_;
  }

 private:
  double* out_;
  int64_t size_;
  double largest_, total_;
};

}  // namespace millrace::ops
