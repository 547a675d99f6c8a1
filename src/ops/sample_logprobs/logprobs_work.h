// The workspace of the faster tactics of sample_logprobs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/common/sampling_kernels.h"
#include "ops/op.h"

namespace millrace::ops {

class LogprobsWork {
 public:
  /// Tokens of a row that one task reads; a multiple of kSamplingBlock.
  static constexpr int64_t kChunk = 16384;

  explicit LogprobsWork(const Launch& launch)
      : base_(static_cast<std::byte*>(launch.workspace)),
        rows_(launch.in[0].dim(0)),
        vocab_(launch.in[0].dim(1)) {}

  int64_t blocks() const { return (vocab_ + kSamplingBlock - 1) / kSamplingBlock; }
  int64_t chunks() const { return (vocab_ + kChunk - 1) / kChunk; }
  int64_t bytes() const { return maxima_at() + rows_ * blocks() * 4; }

  /// [chunks] sums of weight_units.
  uint64_t* sums(int64_t l) const { return reinterpret_cast<uint64_t*>(base_) + l * chunks(); }
  /// [chunks] 1 where a chunk has no NaN.
  int32_t* is_valid(int64_t l) const {
    return reinterpret_cast<int32_t*>(base_ + rows_ * chunks() * 8) + l * chunks();
  }
  /// [blocks] largest logits.
  float* maxima(int64_t l) const {
    return reinterpret_cast<float*>(base_ + maxima_at()) + l * blocks();
  }

 private:
  int64_t maxima_at() const { return rows_ * chunks() * 12; }

  std::byte* base_;
  int64_t rows_, vocab_;
};

}  // namespace millrace::ops
