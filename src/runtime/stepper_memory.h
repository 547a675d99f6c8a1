// What a stepper allocates: the plan by purpose, made before anything is allocated.
#pragma once

#include <vector>

#include "runtime/beam_sampler.h"
#include "runtime/kv_pool.h"
#include "runtime/loaded_engine.h"
#include "runtime/program.h"
#include "runtime/sampler.h"
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

/// Bytes by purpose.
struct MemoryPlan {
  int64_t weights_copied = 0, weights_mapped = 0;
  int64_t arena = 0, kv_pool = 0, history = 0, sampler = 0;
  int64_t step_buffers = 0;  // on the host and on the device, with the results
  int64_t prompt_table = 0;
  int64_t session() const {
    return arena + kv_pool + history + sampler + step_buffers + prompt_table;
  }
};

MemoryPlan plan_memory(const LoadedEngine& loaded, const StepperOptions& options);
/// The same. Throws Error with the numbers when the session's part, and the weights if they are not
/// loaded, are more than the device has left.
MemoryPlan plan_that_fits(const LoadedEngine& loaded, const StepperOptions& options);

/// Token history i32 [R, N], and with beams behind it the cache indirection, at `tables`.
int64_t table_bytes(const engine::Engine& engine, const StepperOptions& options);
SamplerSizes sampler_sizes(const engine::Engine& engine, const StepperOptions& options,
                           void* tables);
BeamSizes beam_sizes(const engine::Engine& engine, const StepperOptions& options, void* tables);

/// Name of the input with virtual tokens, f32 [R, rows, width].
inline constexpr const char* kPromptTable = "prompt_table";
/// Its shape, or null when the graph has none.
const ir::Shape* prompt_table_shape(const ir::Graph& graph);
/// Bytes of one slot's part of it; 0 without one.
int64_t prompt_table_bytes(const ir::Graph& graph);

}  // namespace millrace::runtime
