// Orders the sampling ops over one step's logits. The arithmetic is in ops/sample_*.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "runtime/op_calls.h"

namespace millrace::runtime {

/// Device memory of the sampler, for steps of at most `max_rows` rows.
struct SamplerSizes {
  int64_t max_rows = 0;    // L
  int64_t vocab_size = 0;  // V
  int max_logprobs = 0;    // k of sample_logprobs; at least 1
  ops::Tensor history;     // i32 [R, N], for its shape
};

/// Where one step's sampling inputs lie on the device, filled by the batch upload.
struct SamplerInputs {
  ops::Tensor rows;      // i32 [L, 32] SamplingRow
  ops::Tensor lists;     // i32 [P]
  ops::Tensor history;   // i32 [R, N]
  bool adjusts = false;  // a row of this step has a logits processor at work
  /// Called once with the rows that were adjusted, [L, V], before tokens are chosen from them.
  std::function<void(const ops::Tensor& adjusted)> on_adjusted;
};

class Sampler {
 public:
  /// Finds out what memory is needed.
  Sampler(const SamplerSizes& sizes, device::Device& device);
  int64_t bytes() const { return memory_bytes_ + calls_.bytes(); }
  /// Operations launched so far.
  int runs() const { return calls_.runs(); }
  /// Allocates it, before anything is run.
  void allocate();

  /// Puts prompt tokens into the history. segments: i32 [A, 4].
  void append_prompts(ops::Tensor history, ops::Tensor ids, ops::Tensor segments);
  /// Chooses a token for each row of `logits` [L, V]; results in tokens() and status().
  void sample(ops::Tensor logits, const SamplerInputs& inputs);
  /// Log-probabilities of `targets` [L] and the best counts[l] ones, in logprobs(), top_ids(),
  /// top_logprobs().
  void logprobs(ops::Tensor logits, ops::Tensor targets, ops::Tensor counts);

  ops::Tensor tokens(int64_t rows) const;        // i32 [L]
  ops::Tensor status(int64_t rows) const;        // i32 [L]
  ops::Tensor logprobs(int64_t rows) const;      // f32 [L]
  ops::Tensor top_ids(int64_t rows) const;       // i32 [L, k]
  ops::Tensor top_logprobs(int64_t rows) const;  // f32 [L, k]

 private:
  SamplerSizes sizes_;
  device::Device& device_;
  OpCalls calls_;
  OpCall prompt_, process_, token_, logprobs_;
  int64_t memory_bytes_;
  std::unique_ptr<device::Memory> memory_;
  std::byte *adjusted_ = nullptr, *tokens_ = nullptr, *status_ = nullptr, *logprob_ = nullptr,
            *top_ids_ = nullptr, *top_logprobs_ = nullptr;
};

}  // namespace millrace::runtime
