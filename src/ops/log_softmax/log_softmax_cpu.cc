// Chunks of rows over threads: maxima, sums of exponentials as integers (their order does not
// matter), then the differences.
#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/sampling_kernels.h"
#include "ops/common/sampling_math.h"
#include "ops/log_softmax/log_softmax_row.h"

namespace millrace::ops {
namespace {

class LogSoftmaxRows {
 public:
  LogSoftmaxRows(const Launch& launch, const SamplingKernels& kernels)
      : x_(launch.in[0].as<float>()),
        out_(launch.out[0].as<float>()),
        rows_(launch.in[0].dim(0)),
        vocab_(launch.in[0].dim(1)),
        chunks_(log_softmax_chunks(vocab_)),
        work_(static_cast<LogSoftmaxChunk*>(launch.workspace)),
        pool_(launch.pool()),
        kernels_(kernels) {}

  void run() const {
    for_each_chunk([this](int64_t l, int64_t chunk) { find_max(l, chunk); });
    for_each_chunk([this](int64_t l, int64_t chunk) {
      at(l, chunk).units = kernels_.sum_units(x(l, chunk), size(chunk), 1, max_of(l));
    });
    for_each_chunk([this](int64_t l, int64_t chunk) { subtract(l, chunk); });
  }

 private:
  template <typename F>
  void for_each_chunk(const F& f) const {
    pool_.parallel_for(rows_ * chunks_, [&](int64_t task) { f(task / chunks_, task % chunks_); });
  }

  LogSoftmaxChunk& at(int64_t l, int64_t chunk) const { return work_[l * chunks_ + chunk]; }
  const float* x(int64_t l, int64_t chunk) const {
    return x_ + l * vocab_ + chunk * kLogSoftmaxChunk;
  }
  int64_t size(int64_t chunk) const {
    return std::min(kLogSoftmaxChunk, vocab_ - chunk * kLogSoftmaxChunk);
  }

  void find_max(int64_t l, int64_t chunk) const {
    float maxima[kLogSoftmaxChunk / kSamplingBlock];
    const bool valid = kernels_.block_maxima(x(l, chunk), size(chunk), maxima);
    const int64_t blocks = (size(chunk) + kSamplingBlock - 1) / kSamplingBlock;
    at(l, chunk).max = valid ? *std::max_element(maxima, maxima + blocks) : NAN;
  }

  /// NaN when the row has no probabilities.
  float max_of(int64_t l) const {
    float max = at(l, 0).max;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      const float m = at(l, chunk).max;
      if (std::isnan(m)) return NAN;
      max = std::max(max, m);
    }
    return std::isinf(max) ? NAN : max;
  }

  void subtract(int64_t l, int64_t chunk) const {
    uint64_t units = 0;
    for (int64_t c = 0; c < chunks_; ++c)
      units += at(l, c).units;
    const double lse = max_of(l) + std::log(std::ldexp(static_cast<double>(units), -kWeightBits));
    const float* from = x(l, chunk);
    float* to = out_ + (from - x_);
    for (int64_t i = 0; i < size(chunk); ++i)
      to[i] = static_cast<float>(from[i] - lse);
  }

  const float* x_;
  float* out_;
  int64_t rows_, vocab_, chunks_;
  LogSoftmaxChunk* work_;
  ThreadPool& pool_;
  const SamplingKernels& kernels_;
};

}  // namespace

void log_softmax_cpu(const Launch& launch) {
  LogSoftmaxRows(launch, sampling_kernels_cpu()).run();
}

#ifdef __x86_64__
void log_softmax_avx2(const Launch& launch) {
  LogSoftmaxRows(launch, sampling_kernels_avx2()).run();
}
#endif

}  // namespace millrace::ops
