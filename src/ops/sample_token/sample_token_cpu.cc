// Maxima of blocks, sums of weights and draws, each a pass over rows and chunks of rows. Sums are
// of integers, so the split does not matter.
#include <algorithm>

#include "base/thread_pool.h"
#include "ops/sample_token/draw_row.h"
#include "ops/sample_token/sample_token_io.h"
#include "ops/sample_token/sample_token_work.h"

namespace millrace::ops {
namespace {

class Choice {
 public:
  Choice(const Launch& launch, const SamplingKernels& kernels)
      : io_(launch), work_(launch), pool_(launch.pool()), kernels_(kernels) {}

  void run() const {
    for_each_chunk([this](int64_t l, int64_t chunk) { find_maxima(l, chunk); });
    pool_.parallel_for(io_.count, [this](int64_t l) { put_greedy(l); });
    bool any_draws = false, any_sums = false;
    for (int64_t l = 0; l < io_.count; ++l) {
      const SamplingRow row = io_.row(l);
      any_draws |= is_drawn(row, l);
      any_sums |= is_drawn(row, l) && open(row, l).needs_sums();
    }
    if (!any_draws) return;
    if (any_sums) for_each_chunk([this](int64_t l, int64_t chunk) { sum_weights(l, chunk); });
    pool_.parallel_for(work_.tasks(), [this](int64_t task) {
      for (int64_t l = task; l < io_.count; l += work_.tasks()) {
        const SamplingRow row = io_.row(l);
        if (!is_drawn(row, l)) continue;
        const int32_t token = draw_row(open(row, l), kernels_, work_.candidates(task));
        io_.put(row, l, token, kSamplingOk);
      }
    });
  }

 private:
  static constexpr int64_t kChunk = SampleTokenWork::kChunk;

  template <typename F>
  void for_each_chunk(const F& f) const {
    const int64_t chunks = work_.chunks();
    pool_.parallel_for(io_.count * chunks, [&](int64_t task) { f(task / chunks, task % chunks); });
  }

  int64_t chunk_size(int64_t chunk) const { return std::min(kChunk, io_.vocab - chunk * kChunk); }

  void find_maxima(int64_t l, int64_t chunk) const {
    const SamplingRow row = io_.row(l);
    if (row.slot < 0) return;
    const bool valid =
        kernels_.block_maxima(io_.logits_of(row, l) + chunk * kChunk, chunk_size(chunk),
                              work_.maxima(l) + chunk * (kChunk / kSamplingBlock));
    work_.is_valid(l)[chunk] = valid ? 1 : 0;
  }

  /// Greedy rows get their token, others their status.
  void put_greedy(int64_t l) const {
    const SamplingRow row = io_.row(l);
    if (row.slot < 0) {
      io_.put(row, l, 0, kSamplingOk);
      return;
    }
    const bool draws = (row.flags & kSamplingDraws) != 0;
    const float* maxima = work_.maxima(l);
    const float* best = std::max_element(maxima, maxima + work_.blocks());
    const int32_t* valid = work_.is_valid(l);
    SamplingStatus status = status_of_max(*best);
    if (status == kSamplingOk && draws) status = status_of_max(*best / row.temperature);
    if (std::find(valid, valid + work_.chunks(), 0) != valid + work_.chunks()) {
      status = kSamplingNotFinite;
    }
    int64_t token = 0;
    if (status == kSamplingOk && !draws) {
      const float* x = io_.logits_of(row, l);
      const int64_t begin = (best - maxima) * kSamplingBlock;
      token = std::find(x + begin, x + std::min(io_.vocab, begin + kSamplingBlock), *best) - x;
    }
    io_.put(row, l, static_cast<int32_t>(token), status);
  }

  bool is_drawn(const SamplingRow& row, int64_t l) const {
    return row.slot >= 0 && (row.flags & kSamplingDraws) != 0 && io_.status[l] == kSamplingOk;
  }

  DrawRow open(const SamplingRow& row, int64_t l) const {
    DrawRow d{row, io_.logits_of(row, l), io_.vocab, 0, work_.maxima(l), work_.sums(l)};
    d.max = *std::max_element(d.maxima, d.maxima + work_.blocks()) / row.temperature;
    return d;
  }

  void sum_weights(int64_t l, int64_t chunk) const {
    const SamplingRow row = io_.row(l);
    if (!is_drawn(row, l)) return;
    const DrawRow d = open(row, l);
    if (!d.needs_sums()) return;
    work_.sums(l)[chunk] =
        kernels_.sum_units(d.x + chunk * kChunk, chunk_size(chunk), row.temperature, d.max);
  }

  SampleTokenIo io_;
  SampleTokenWork work_;
  ThreadPool& pool_;
  const SamplingKernels& kernels_;
};

}  // namespace

void sample_token_cpu(const Launch& launch) {
  Choice(launch, sampling_kernels_cpu()).run();
}

#ifdef __x86_64__
void sample_token_avx2(const Launch& launch) {
  Choice(launch, sampling_kernels_avx2()).run();
}
#endif

}  // namespace millrace::ops
