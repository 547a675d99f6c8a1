// Maxima of blocks, sums of exponentials as integers (2^-40: their error stays below 2^-24 of the
// sum), and the best tokens of the blocks that can hold one.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/thread_pool.h"
#include "ops/common/sampling_math.h"
#include "ops/sample_logprobs/logprobs_io.h"
#include "ops/sample_logprobs/logprobs_work.h"

namespace millrace::ops {
namespace {

class Logprobs {
 public:
  Logprobs(const Launch& launch, const SamplingKernels& kernels)
      : io_(launch), work_(launch), pool_(launch.pool()), kernels_(kernels) {}

  void run() const {
    for_each_chunk([this](int64_t l, int64_t chunk) {
      work_.is_valid(l)[chunk] =
          kernels_.block_maxima(io_.x(l) + chunk * kChunk, chunk_size(chunk),
                                work_.maxima(l) + chunk * (kChunk / kSamplingBlock))
              ? 1
              : 0;
    });
    for_each_chunk([this](int64_t l, int64_t chunk) {
      work_.sums(l)[chunk] =
          kernels_.sum_units(io_.x(l) + chunk * kChunk, chunk_size(chunk), 1, max_of(l));
    });
    pool_.parallel_for(io_.count, [this](int64_t l) { put(l); });
  }

 private:
  static constexpr int64_t kChunk = LogprobsWork::kChunk;

  template <typename F>
  void for_each_chunk(const F& f) const {
    const int64_t chunks = work_.chunks();
    pool_.parallel_for(io_.count * chunks, [&](int64_t task) {
      if (io_.is_wanted(task / chunks)) f(task / chunks, task % chunks);
    });
  }

  int64_t chunk_size(int64_t chunk) const { return std::min(kChunk, io_.vocab - chunk * kChunk); }

  float max_of(int64_t l) const {
    return *std::max_element(work_.maxima(l), work_.maxima(l) + work_.blocks());
  }

  void put(int64_t l) const {
    io_.clear(l, 0);
    if (!io_.is_wanted(l)) return;
    const int32_t* valid = work_.is_valid(l);
    const bool has_nan = std::find(valid, valid + work_.chunks(), 0) != valid + work_.chunks();
    const float max = max_of(l);
    if (has_nan || std::isinf(max)) {
      io_.clear(l, std::numeric_limits<float>::quiet_NaN());
      return;
    }
    uint64_t units = 0;
    for (int64_t chunk = 0; chunk < work_.chunks(); ++chunk)
      units += work_.sums(l)[chunk];
    const double lse = max + std::log(std::ldexp(static_cast<double>(units), -kWeightBits));
    io_.put_target(l, lse);
    find_best(l);
    for (int64_t place = 0; place < io_.wanted(l); ++place)
      io_.put_best(l, place, io_.top_ids[l * io_.k + place], lse);
  }

  /// Fills top_ids by insertion: a token enters when it is larger than the last one there.
  void find_best(int64_t l) const {
    const float* x = io_.x(l);
    int32_t* ids = io_.top_ids + l * io_.k;
    const int64_t wanted = io_.wanted(l);
    if (wanted == 0) return;
    int64_t found = 0;
    for (int64_t begin = 0; begin < io_.vocab; begin += kSamplingBlock) {
      const float best = work_.maxima(l)[begin / kSamplingBlock];
      if (found == wanted && best <= x[ids[found - 1]]) continue;
      const int64_t end = std::min<int64_t>(io_.vocab, begin + kSamplingBlock);
      for (int64_t t = begin; t < end; ++t) {
        if (found == wanted && x[t] <= x[ids[found - 1]]) continue;
        int64_t place = found < wanted ? found++ : found - 1;
        for (; place > 0 && x[ids[place - 1]] < x[t]; --place)
          ids[place] = ids[place - 1];
        ids[place] = static_cast<int32_t>(t);
      }
    }
  }

  LogprobsIo io_;
  LogprobsWork work_;
  ThreadPool& pool_;
  const SamplingKernels& kernels_;
};

}  // namespace

void sample_logprobs_cpu(const Launch& launch) {
  Logprobs(launch, sampling_kernels_cpu()).run();
}

#ifdef __x86_64__
void sample_logprobs_avx2(const Launch& launch) {
  Logprobs(launch, sampling_kernels_avx2()).run();
}
#endif

}  // namespace millrace::ops
