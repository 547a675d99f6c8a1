#include "runtime/stepper_memory.h"

#include <algorithm>

#include "base/error.h"
#include "runtime/encoder_runner.h"
#include "runtime/op_calls.h"
#include "runtime/step_results.h"

namespace millrace::runtime {

int64_t table_bytes(const engine::Engine& engine, const StepperOptions& options) {
  const int tables = engine.manifest.max_beam_width > 1 ? 2 : 1;
  return tables * int64_t{options.limits.max_sequences} * options.max_seq_len * 4;
}

SamplerSizes sampler_sizes(const engine::Engine& engine, const StepperOptions& options,
                           void* tables) {
  return {.max_rows = options.limits.max_logit_rows,
          .vocab_size = engine.manifest.vocab_size,
          .max_logprobs = options.max_logprobs,
          .history = matrix_at(tables, ir::DType::kI32, options.limits.max_sequences,
                               options.max_seq_len)};
}

BeamSizes beam_sizes(const engine::Engine& engine, const StepperOptions& options, void* tables) {
  const StepLimits& limits = options.limits;
  const std::array<int64_t, 3> shape = {2, limits.max_sequences, options.max_seq_len};
  return {.beams = limits.beams,
          .max_rows = limits.max_logit_rows,
          .max_requests = limits.max_sequences / limits.beams,
          .max_slots = limits.max_sequences,
          .vocab_size = engine.manifest.vocab_size,
          .tables = {tables, ir::DType::kI32, shape}};
}

const ir::Shape* prompt_table_shape(const ir::Graph& graph) {
  for (const ir::NodeId id : graph.order()) {
    const ir::Node& node = graph.node(id);
    if (node.op == ir::kInputOp &&
        std::get<std::string>(*node.attrs.find("name")) == kPromptTable) {
      return &graph.type(node.outputs[0]).shape;
    }
  }
  return nullptr;
}

int64_t prompt_table_bytes(const ir::Graph& graph) {
  const ir::Shape* shape = prompt_table_shape(graph);
  return shape == nullptr ? 0 : (*shape)[1].value() * (*shape)[2].value() * 4;
}

MemoryPlan plan_memory(const LoadedEngine& loaded, const StepperOptions& options) {
  const engine::Engine& engine = loaded.engine();
  const StepLimits& limits = options.limits;
  MemoryPlan plan{.weights_copied = loaded.weights->copied_bytes(),
                  .weights_mapped = loaded.weights->mapped_bytes(),
                  .arena = arena_bytes(engine),
                  .history = table_bytes(engine, options),
                  .prompt_table = limits.max_sequences * prompt_table_bytes(engine.graph)};
  for (size_t g = 0; g < options.kv.size(); ++g) {
    const auto& [blocks, tokens] = options.kv[g];
    plan.kv_pool += blocks * kv_block_bytes(engine.kv_groups[g], tokens, options.kv_dtype);
  }
  plan.sampler = Sampler(sampler_sizes(engine, options, nullptr), *loaded.device).bytes();
  if (limits.beams > 1) {
    plan.sampler += BeamSampler(beam_sizes(engine, options, nullptr), *loaded.device).bytes();
  }
  const int64_t inputs = StepBuffers::bytes_of(StepBuffers::arrays_of(limits));
  plan.step_buffers = 2 * (2 * inputs + StepResults::bytes_of(limits, options.max_logprobs));
  if (engine.encoder) {
    plan.step_buffers += 2 * StepBuffers::bytes_of(EncoderRunner::arrays_of(engine, limits));
  }
  return plan;
}

MemoryPlan plan_that_fits(const LoadedEngine& loaded, const StepperOptions& options) {
  const MemoryPlan plan = plan_memory(loaded, options);
  const int64_t free = loaded.device->free_bytes(), weights = loaded.weights->pending_bytes();
  if (plan.session() + weights <= free) return plan;
  const std::string beside =
      weights == 0 ? "" : str(" beside ", format_bytes(weights), " of weights");
  throw_failed(
      str("the session needs ", format_bytes(plan.session()), " (activations ",
          format_bytes(plan.arena), ", KV cache ", format_bytes(plan.kv_pool), ", other buffers ",
          format_bytes(plan.session() - plan.arena - plan.kv_pool), ")", beside, ", and ",
          format_bytes(free), " of ", loaded.device->properties().name, " are free"),
      loaded.engine().manifest.model,
      "shorten the sequences, take fewer at a time, or lower --max-num-tokens");
}

}  // namespace millrace::runtime
