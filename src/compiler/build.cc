#include "compiler/build.h"

#include <chrono>

#include "base/str.h"
#include "base/version.h"
#include "compiler/lower.h"
#include "compiler/passes/plan_passes.h"
#include "compiler/pipeline.h"
#include "compiler/tactics/profiler.h"
#include "compiler/trace_model.h"
#include "compiler/weight_sources.h"
#include "device/software.h"

namespace millrace::compiler {
namespace {

double ms_since(std::chrono::steady_clock::time_point start) {
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  return took.count();
}

/// Whose kernels are timed: another version of the program, or of a library, has others.
std::string software(device::Kind kind) {
  const std::string program = str("millrace ", commit());
  return kind == device::Kind::kCpu ? program : str(program, ", ", device::cuda_software());
}

int64_t trial_memory(const BuildOptions& options, const device::Device& device) {
  if (options.max_build_memory > 0) return options.max_build_memory;
  return int64_t{device.properties().kind == device::Kind::kCpu ? 1 : 2} << 30;
}

void run_encoder_passes(ir::Graph& encoder, PassOptions options) {
  if (!options.dump_folder.empty()) options.dump_folder += "/encoder";
  run_passes(encoder, pipeline(), options);
}

std::vector<engine::PlannedGraph*> graphs_of(engine::Engine& engine) {
  std::vector<engine::PlannedGraph*> graphs = {&engine};
  if (engine.encoder) graphs.push_back(&*engine.encoder);
  return graphs;
}

}  // namespace

engine::Engine build_engine(const BuildInput& input, const BuildOptions& options,
                            device::Device& device, BuildReport* report) {
  const auto start = std::chrono::steady_clock::now();

  // What the model says: forward() and prepare_inputs() in one graph.
  const device::Kind kind = device.properties().kind;
  TracedModel traced = trace_model(input, options, kind, report);
  report->trace_ms = ms_since(start);

  // The same, with fewer and larger operations that have tactics.
  const PassOptions passes = {
      .dump_folder = options.dump_folder,
      .disabled = options.disabled_passes,
      .device = kind,
      .may_round_x = traced.limits.compute == ComputeType::kBf16 && !options.deterministic};
  report->passes = run_passes(traced.graph, pipeline(), passes);
  if (traced.encoder) run_encoder_passes(*traced.encoder, passes);

  // Its launches, groups of KV layers, weights.
  engine::Engine engine = lower(std::move(traced), options);
  list_weights(input.checkpoint, engine);
  describe_build(input, options, device.properties(), &engine.manifest);

  // How each launch runs, by its number of rows, and which go as one.
  const auto tactics_start = std::chrono::steady_clock::now();
  TimingCache cache(options.timing_cache, device.properties(),
                    options.profile ? software(kind) : "");
  Profiler profiler(device, cache, trial_memory(options, device));
  for (engine::PlannedGraph* planned : graphs_of(engine)) {
    select_tactics(*planned, device, options.profile ? &profiler : nullptr, options.deterministic);
    if (options.profile && !options.deterministic) select_chains(*planned, device, profiler);
  }
  cache.save();
  report->tactics_ms = ms_since(tactics_start);
  report->tactics_timed = profiler.timed();
  report->tactics_from_cache = profiler.from_cache();
  report->notes.insert(report->notes.end(), profiler.notes().begin(), profiler.notes().end());

  // Where everything lies while it runs.
  for (engine::PlannedGraph* planned : graphs_of(engine)) {
    plan_memory(*planned, device.properties());
    verify_memory_plan(*planned);
    partition_capture(*planned);
  }
  report->total_ms = ms_since(start);
  return engine;
}

}  // namespace millrace::compiler
