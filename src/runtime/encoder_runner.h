// Runs the encoder of an encoder-decoder model over the inputs of sequences that begin: what comes
// out are their cross KV caches, which steps only read.
#pragma once

#include <memory>
#include <vector>

#include "runtime/kv_pool.h"
#include "runtime/loaded_engine.h"
#include "runtime/program.h"
#include "runtime/step_buffers.h"

namespace millrace::runtime {

class EncoderRunner {
 public:
  /// `arena` holds the encoder's regime; it may be that of steps, since all run in one order.
  /// REQUIRES: the engine has an encoder.
  EncoderRunner(const LoadedEngine& loaded, const StepLimits& limits, KvPool& kv, std::byte* arena);

  /// Its inputs.
  static StepBuffers::Arrays arrays_of(const engine::Engine& engine, const StepLimits& limits);

  /// Enqueues the encoder for those sequences of the batch that bring an input, in as few runs as
  /// hold them.
  void run(const Batch& batch);
  Program& program() { return program_; }
  int64_t runs() const { return runs_; }  // so far

 private:
  void run_part(const Batch& batch, const std::vector<size_t>& sequences);
  void fill_input(const StepSequence& sequence, int64_t first_row);

  const engine::Engine& engine_;
  device::Device& device_;
  StepLimits limits_;
  Program program_;
  StepBuffers buffers_;
  std::unique_ptr<device::Event> uploaded_;  // the arrays of the last run have left the host
  Frame frame_;
  int64_t runs_ = 0;
};

}  // namespace millrace::runtime
