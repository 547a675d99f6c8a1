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
#include "runtime/program.h"
#include "runtime/step.h"
#include "runtime/step_results.h"
#include "runtime/stepper_memory.h"

namespace millrace::runtime {

class GraphStepper : public Stepper {
 public:
  GraphStepper(std::shared_ptr<const LoadedEngine> engine, const StepperOptions& options);

  int max_sequences() const override { return options_.limits.max_sequences; }
  int max_num_tokens() const override { return options_.limits.max_num_tokens; }
  bool runs_ahead() const override { return loaded_->device->is_asynchronous(); }
  void begin_sequence(int slot, const SequenceOptions& options) override;
  void launch(const Batch& batch) override;
  StepResult collect() override;

  /// What was allocated, as planned.
  const MemoryPlan& memory() const { return plan_; }
  /// That of steps, or the encoder's. REQUIRES: there is one.
  Program& program(bool encoder = false) { return encoder ? encoder_->program() : program_; }
  KvPool& kv_pool() { return kv_; }
  const engine::Engine& engine() const { return loaded_->engine(); }
  /// Times that the encoder ran.
  int64_t encoder_runs() const { return encoder_ ? encoder_->runs() : 0; }
  /// Steps launched so far; the parity of this number says which set of buffers the next one takes.
  int64_t steps() const { return steps_; }

  /// Graphs captured so far: stops growing once every shape of generation steps was met twice.
  int64_t captures() const { return captures_; }

 private:
  // What a captured step depends on; all else is in device memory.
  struct StepKey {
    int rows, sampled;
    bool adjusts, logprobs;
    int length_class;
    auto operator<=>(const StepKey&) const = default;
  };
  struct CapturedStep {
    // Null after the first step of a kind, which runs as it is: kernels are loaded then.
    std::unique_ptr<device::CapturedGraph> graph;
    int launches = 0;  // in it
  };
  // One of the two instances, even and odd: buffers, the addresses that launches see with them, and
  // the steps captured with these addresses.
  struct Instance {
    std::unique_ptr<StepBuffers> buffers;
    std::array<Frame, 2> frames;  // by regime
    std::map<StepKey, CapturedStep> graphs;
    std::unique_ptr<StepResults> results;
    std::unique_ptr<device::Event> done;
    StepShape shape;
    int logprobs = -1;  // of the batch
    StepResult result;
    std::chrono::steady_clock::time_point start;
    bool pending = false;
  };
  void bind(Instance& instance);
  void upload_lists();
  bool is_capturable(const Batch& batch) const;
  void replay(Instance& instance, Regime regime);
  int enqueue(Instance& instance, Regime regime);
  int run_body(Instance& instance, Regime regime);
  ops::Tensor logits(const Instance& instance, Regime regime, int rows) const;
  int run_head(Instance& instance, Regime regime, int rows);
  void run_target_rows(Instance& instance, Regime regime, const Batch& batch);
  std::vector<ops::Tensor> sample(Instance& instance, const ops::Tensor& logits);
  void process_on_host(const Instance& instance, const ops::Tensor& adjusted);
  std::vector<ops::Tensor> choose_beams(Instance& instance, const ops::Tensor& logits,
                                        const SamplerInputs& inputs);
  void take_times(Instance& instance);
  static std::string describe(const Instance& instance);
  ops::Tensor history() const;
  void deliver_sampled_logits(const Instance& instance, Regime regime, const Batch& batch);
  void deliver_logits(const Batch& batch, const LogitsRows& rows, const ops::Tensor& device_logits);
  std::vector<TokenLogprobs> read_logprobs(std::span<const int32_t> ids, int rows, int top);
  ir::Bindings sizes(const StepShape& shape, int logit_rows) const;

  std::shared_ptr<const LoadedEngine> loaded_;
  StepperOptions options_;
  device::Device& device_;
  MemoryPlan plan_;
  Program program_;
  KvPool kv_;
  std::unique_ptr<device::Memory> arena_, lists_;
  std::unique_ptr<device::Memory> tables_;  // token history, and behind it the cache indirection
  std::unique_ptr<device::Memory> prompt_table_;  // f32 [R, P, E], for engines with virtual tokens
  std::unique_ptr<EncoderRunner> encoder_;        // null: the model has none
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<BeamSampler> beam_sampler_;  // with beams
  std::vector<SlotSampling> slots_;
  bool lists_changed_ = true;
  std::array<Instance, 2> instances_;
  int64_t steps_ = 0, captures_ = 0;
  std::chrono::steady_clock::time_point last_collect_;
  int64_t last_ended_ns_ = 0;  // on the device
  std::vector<float> host_logits_;
  std::function<void(int sequence, std::span<float> row)> process_logits_;  // of the step launched
};

}  // namespace millrace::runtime
