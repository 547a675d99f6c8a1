// Orders the ops of beam search over one step's logits: log-probabilities, logits processors on
// them (as in transformers), the best continuations, and the tables that follow the beams. The
// arithmetic is in ops/log_softmax, sample_process, beam_step and beam_reorder.
#pragma once

#include <cstdint>
#include <memory>

#include "runtime/op_calls.h"
#include "runtime/sampler.h"

namespace millrace::runtime {

struct BeamSizes {
  int beams = 0;             // K
  int64_t max_rows = 0;      // L
  int64_t max_requests = 0;  // G
  int64_t max_slots = 0;     // R
  int64_t vocab_size = 0;    // V
  ops::Tensor tables;        // i32 [2, R, N]: token history and cache indirection, on the device
};

class BeamSampler {
 public:
  /// Finds out what memory is needed.
  BeamSampler(const BeamSizes& sizes, device::Device& device);
  int64_t bytes() const { return memory_bytes_ + calls_.bytes(); }
  /// Operations launched so far.
  int runs() const { return calls_.runs(); }
  /// Allocates it, before anything is run.
  void allocate();

  /// Chooses the continuations of each request in `beams` i32 [G, 8]; results in chosen() and the
  /// others. `logits` [L, V].
  void choose(ops::Tensor logits, const SamplerInputs& inputs, ops::Tensor beams);

  ops::Tensor chosen(int64_t requests) const;   // f32 [G, 2K]
  ops::Tensor parents(int64_t requests) const;  // i32 [G, 2K]
  ops::Tensor tokens(int64_t requests) const;   // i32 [G, 2K]
  ops::Tensor status(int64_t requests) const;   // i32 [G]

 private:
  BeamSizes sizes_;
  device::Device& device_;
  OpCalls calls_;
  OpCall log_softmax_, process_, step_, reorder_;
  int64_t memory_bytes_;
  std::unique_ptr<device::Memory> memory_;
  std::byte *log_probs_ = nullptr, *adjusted_ = nullptr, *scores_ = nullptr, *chosen_ = nullptr,
            *parents_ = nullptr, *tokens_ = nullptr, *status_ = nullptr;
};

}  // namespace millrace::runtime
