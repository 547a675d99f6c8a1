// What a step found, in pinned memory of its set of buffers: written by the step's last launch,
// read when the step is done.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "device/device.h"
#include "ops/op.h"
#include "runtime/step.h"
#include "runtime/step_buffers.h"

namespace millrace::runtime {

/// Log-probabilities by row, wherever they lie.
struct LogprobRows {
  const int32_t* tokens;      // [rows]
  const float* logprobs;      // [rows]
  const int32_t* top_ids;     // [rows, columns]
  const float* top_logprobs;  // [rows, columns]
  int columns;

  /// Of one row, with the `top` best.
  TokenLogprobs at(size_t row, int top) const;
};

class StepResults {
 public:
  /// Without beams the sampler's tokens, status, log-probabilities, best ids and theirs, by row;
  /// with beams the sums, parents, tokens of the 2K places and the status, by request.
  StepResults(const StepLimits& limits, int max_logprobs, device::Device& device);
  static int64_t bytes_of(const StepLimits& limits, int max_logprobs);

  /// Where the device writes the time at which the step began.
  int64_t* begun_ns() { return times(); }
  /// Ends a step on the device: brings over the first of the columns above. Fewer than all may be
  /// there.
  void end_step(std::span<const ops::Tensor> columns);

  /// REQUIRES: the step is done. `logprobs`: best ones of the batch, -1 for none.
  void read(const StepShape& shape, int logprobs, StepResult& result) const;
  int64_t began() const { return times()[0]; }
  int64_t ended() const { return times()[1]; }

 private:
  int64_t* times() const { return reinterpret_cast<int64_t*>(memory_->data()); }
  template <typename T>
  const T* column(size_t c) const {
    return reinterpret_cast<const T*>(memory_->data() + offsets_[c]);
  }
  void read_beams(const StepShape& shape, StepResult& result) const;

  device::Device& device_;
  int beams_, columns_;
  std::vector<int64_t> offsets_;
  std::unique_ptr<device::Memory> memory_;  // the times, then the columns
};

}  // namespace millrace::runtime
