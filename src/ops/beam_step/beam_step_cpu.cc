// Pieces of rows over threads. A block of tokens is looked into where its maximum can still enter
// the piece's list; end tokens are few, so that they are looked up when the lists are joined.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/beam_step/beam_step_work.h"
#include "ops/common/sampling_kernels.h"

namespace millrace::ops {
namespace {

/// The first K of what is added, in their order.
class FirstOnes {
 public:
  FirstOnes(Continuation* list, int64_t k) : list_(list), k_(k) {
    std::fill_n(list, k, Continuation{});
  }

  bool is_full() const { return count_ == k_; }
  float last_score() const { return list_[count_ - 1].score; }

  void add(const Continuation& c) {
    if (is_full() && !c.is_before(list_[k_ - 1])) return;
    int64_t place = is_full() ? k_ - 1 : count_++;
    for (; place > 0 && c.is_before(list_[place - 1]); --place)
      list_[place] = list_[place - 1];
    list_[place] = c;
  }

 private:
  Continuation* list_;
  int64_t k_;
  int64_t count_ = 0;
};

class BeamSearchStep {
 public:
  BeamSearchStep(const Launch& launch, const SamplingKernels& kernels)
      : io_(launch), work_(launch), pool_(launch.pool()), kernels_(kernels) {}

  void run() const {
    pool_.parallel_for(work_.tasks(), [this](int64_t task) { search_piece(task); });
    pool_.parallel_for(io_.requests, [this](int64_t g) { join(g); });
  }

 private:
  static constexpr int64_t kPiece = BeamStepWork::kPiece;

  void search_piece(int64_t task) const {
    const int64_t piece = task % work_.pieces, g = task / work_.pieces / io_.k;
    const auto b = static_cast<int32_t>(task / work_.pieces % io_.k);
    const BeamRow beam = read_beam_row(io_.beams, g);
    const float base = io_.base(beam, b);
    const float* x = io_.x(beam, b);
    const int64_t begin = piece * kPiece, end = std::min(io_.vocab, begin + kPiece);
    float maxima[kPiece / kSamplingBlock];
    *work_.has_nan(task) = kernels_.block_maxima(x + begin, end - begin, maxima) ? 0 : 1;
    FirstOnes first(work_.found(task), io_.k);
    for (int64_t block = begin; block < end; block += kSamplingBlock) {
      // Tokens come in order, so that an equal score comes too late.
      const float best = base + maxima[(block - begin) / kSamplingBlock];
      if (first.is_full() && !(best > first.last_score())) continue;
      for (int64_t t = block; t < std::min(end, block + kSamplingBlock); ++t) {
        const float score = base + x[t];
        if (first.is_full() && !(score > first.last_score())) continue;
        if (io_.ends(beam, static_cast<int32_t>(t))) continue;
        first.add({score, static_cast<int32_t>(b * io_.vocab + t)});
      }
    }
  }

  void join(int64_t g) const {
    const BeamRow beam = read_beam_row(io_.beams, g);
    std::array<Continuation, kMaxBeams> going_on, best;
    FirstOnes first(going_on.data(), io_.k), first_of_all(best.data(), io_.k);
    bool has_nan = false;
    for (int64_t task = g * io_.k * work_.pieces; task < (g + 1) * io_.k * work_.pieces; ++task) {
      has_nan = has_nan || *work_.has_nan(task) != 0;
      for (int64_t i = 0; i < io_.k; ++i) {
        const Continuation& c = work_.found(task)[i];
        if (c.index < 0) break;
        first.add(c);
        first_of_all.add(c);
      }
    }
    for (int32_t b = 0; b < io_.k; ++b) {
      for (int32_t i = 0; i < beam.end_ids.count; ++i) {
        const int32_t t = io_.lists[beam.end_ids.offset + i];
        if (t < 0 || t >= io_.vocab) continue;
        first_of_all.add(
            {io_.base(beam, b) + io_.x(beam, b)[t], static_cast<int32_t>(b * io_.vocab + t)});
      }
    }
    for (int32_t place = 0; place < io_.k; ++place) {
      io_.put(g, place, going_on[static_cast<size_t>(place)]);
      io_.put(g, io_.k + place, best[static_cast<size_t>(place)]);
    }
    io_.status[g] = has_nan                        ? kSamplingNotFinite
                    : !(best[0].score > -INFINITY) ? kSamplingNoCandidate
                                                   : kSamplingOk;
    for (int32_t b = 0; b < io_.k; ++b)
      io_.scores[beam.slot + b] = going_on[static_cast<size_t>(b)].score;
  }

  BeamStepIo io_;
  BeamStepWork work_;
  ThreadPool& pool_;
  const SamplingKernels& kernels_;
};

}  // namespace

void beam_step_cpu(const Launch& launch) {
  BeamSearchStep(launch, sampling_kernels_cpu()).run();
}

#ifdef __x86_64__
void beam_step_avx2(const Launch& launch) {
  BeamSearchStep(launch, sampling_kernels_avx2()).run();
}
#endif

}  // namespace millrace::ops
