// The stepper of an engine: two sets of step buffers, the arena, the KV pool, the program and the
// sampler.
#pragma once

#include <array>
#include <chrono>
#include <compare>
#include <map>
#include <memory>

#include "runtime/batch_upload.h"
#include "runtime/encoder_runner.h"
#include "runtime/kv_pool.h"
#include "runtime/loaded_engine.h"
#include "runtime/program.h"
#include "runtime/sampler.h"
#include "runtime/step.h"
#include "runtime/step_buffers.h"

namespace millrace::runtime {

/// Sizes that a session fixes when it is set up.
struct StepperOptions {
  StepLimits limits;
  int max_seq_len = 0;
  int max_logprobs = 1;
  ir::DType kv_dtype = ir::DType::kF32;
  std::vector<KvPool::GroupSize> kv;  // by group
  bool capture = true;                // steps of generated tokens, where the device can
};

/// What a stepper allocates, by purpose: the exact plan, known before anything is allocated.
struct MemoryPlan {
  int64_t weights_copied = 0, weights_mapped = 0;
  int64_t arena = 0, kv_pool = 0, step_buffers = 0, history = 0, sampler = 0;
  int64_t total() const {
    return weights_copied + arena + kv_pool + step_buffers + history + sampler;
  }
};

class GraphStepper : public Stepper {
 public:
  GraphStepper(std::shared_ptr<const LoadedEngine> engine, const StepperOptions& options);

  int max_sequences() const override { return options_.limits.max_sequences; }
  int max_num_tokens() const override { return options_.limits.max_num_tokens; }
  bool runs_ahead() const override { return loaded_->device->is_asynchronous(); }
  void begin_sequence(int slot, const SequenceOptions& options) override;
  void launch(const Batch& batch) override;
  StepResult collect() override;

  MemoryPlan memory() const;
  Program& program() { return program_; }
  KvPool& kv_pool() { return kv_; }
  const engine::Engine& engine() const { return loaded_->engine(); }
  /// Steps launched so far; the parity of this number says which set of buffers the next one takes.
  int64_t steps() const { return steps_; }

  /// Graphs captured so far: stops growing once every shape of generation steps was met twice.
  int64_t captures() const { return captures_; }

 private:
  // What a captured step depends on; all else is in device memory.
  struct StepKey {
    int rows, sampled;
    bool adjusts, logprobs;
    auto operator<=>(const StepKey&) const = default;
  };
  // One of the two instances, even and odd: buffers, the addresses that launches see with them, and
  // the steps captured with these addresses.
  struct Instance {
    std::unique_ptr<StepBuffers> buffers;
    std::array<Frame, 2> frames;  // by regime
    // Null after the first step of a kind, which runs as it is: kernels are loaded then.
    std::map<StepKey, std::unique_ptr<device::CapturedGraph>> graphs;
    std::unique_ptr<device::Memory> results;  // pinned: what the sampler found
    std::unique_ptr<device::Event> done;
    StepShape shape;
    int logprobs = -1;  // of the batch
    StepResult result;
    std::chrono::steady_clock::time_point start;
    bool pending = false;
  };
  // The sampler's results, by row: in pinned memory, or read back.
  struct SampledRows {
    const int32_t* tokens;
    const int32_t* status;
    const float* logprobs;
    const int32_t* top_ids;     // [rows, columns]
    const float* top_logprobs;  // [rows, columns]
  };

  void bind(Instance& instance);
  void upload_lists();
  void run(Instance& instance, Regime regime);
  void enqueue(Instance& instance, Regime regime);
  void run_body(Instance& instance, Regime regime);
  ops::Tensor logits(const Instance& instance, Regime regime, int rows) const;
  ops::Tensor run_head(Instance& instance, Regime regime, int rows);
  void run_target_rows(Instance& instance, Regime regime, const Batch& batch);
  void sample(Instance& instance, const ops::Tensor& logits);
  void take_in(Instance& instance);
  SampledRows results(const Instance& instance) const;
  int64_t result_bytes() const;
  void deliver_sampled_logits(const Instance& instance, Regime regime, const Batch& batch);
  void deliver_logits(const Batch& batch, const LogitsRows& rows, const ops::Tensor& device_logits);
  std::vector<TokenLogprobs> read_logprobs(std::span<const int32_t> ids, int rows, int top);
  TokenLogprobs token_logprobs(const SampledRows& rows, size_t row, int top) const;
  ir::Bindings sizes(const StepShape& shape, int logit_rows) const;

  std::shared_ptr<const LoadedEngine> loaded_;
  StepperOptions options_;
  device::Device& device_;
  Program program_;
  KvPool kv_;
  std::unique_ptr<device::Memory> arena_, history_, lists_;
  std::unique_ptr<EncoderRunner> encoder_;  // null: the model has none
  std::unique_ptr<Sampler> sampler_;
  std::vector<SlotSampling> slots_;
  bool lists_changed_ = true;
  std::array<Instance, 2> instances_;
  int64_t steps_ = 0, captures_ = 0;
  std::chrono::steady_clock::time_point last_collect_;
  std::vector<float> host_logits_;
};

}  // namespace millrace::runtime
