// The workspace of sample_token's tactics that do not sort.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ops/common/sampling_kernels.h"
#include "ops/op.h"

namespace millrace::ops {

/// Tokens that may still be chosen, in the order of tokens.
struct Candidates {
  float* scaled;  // s
  float* weight;  // w
  int32_t* token;
  int64_t count = 0;
};

class SampleTokenWork {
 public:
  /// Tokens of a row that one task reads; a multiple of kSamplingBlock.
  static constexpr int64_t kChunk = 16384;

  explicit SampleTokenWork(const Launch& launch)
      : base_(static_cast<std::byte*>(launch.workspace)),
        rows_(launch.in[1].dim(0)),
        vocab_(launch.in[1].dim(1)) {}

  int64_t blocks() const { return (vocab_ + kSamplingBlock - 1) / kSamplingBlock; }
  int64_t chunks() const { return (vocab_ + kChunk - 1) / kChunk; }
  /// Rows that are drawn at the same time: each task needs memory for a whole row.
  int64_t tasks() const { return std::min<int64_t>(rows_, 16); }
  int64_t bytes() const { return candidates_at(tasks()); }

  /// [chunks] sums of weight_units.
  uint64_t* sums(int64_t l) const { return at<uint64_t>(0) + l * chunks(); }
  /// [chunks] 1 where a chunk has no NaN.
  int32_t* is_valid(int64_t l) const { return at<int32_t>(valid_at()) + l * chunks(); }
  /// [blocks] largest logits.
  float* maxima(int64_t l) const { return at<float>(maxima_at()) + l * blocks(); }
  Candidates candidates(int64_t task) const {
    auto* floats = at<float>(candidates_at(task));
    return {floats, floats + vocab_, reinterpret_cast<int32_t*>(floats + 2 * vocab_)};
  }

 private:
  static int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
  int64_t valid_at() const { return aligned(rows_ * chunks() * 8); }
  int64_t maxima_at() const { return valid_at() + aligned(rows_ * chunks() * 4); }
  int64_t candidates_at(int64_t task) const {
    return maxima_at() + aligned(rows_ * blocks() * 4) + task * aligned(vocab_ * 12);
  }
  template <typename T>
  T* at(int64_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }

  std::byte* base_;
  int64_t rows_, vocab_;
};

}  // namespace millrace::ops
