// What GenerationSession::setup() derives from its maxima: limits, KV blocks, the stepper.
#pragma once

#include <memory>

#include "runtime/decode_batch.h"
#include "runtime/graph_stepper.h"

namespace millrace::runtime {

struct SessionParts {
  std::unique_ptr<GraphStepper> stepper;
  std::unique_ptr<DecodeBatch> batch;
  int64_t kv_blocks = 0;
};

/// Checks the options against the engine's limits, sizes everything, loads the weights if they are
/// not, allocates once. Throws Error.
SessionParts set_up_session(const std::shared_ptr<const LoadedEngine>& engine,
                            const SetupOptions& options);

/// The largest number of requests, up to options.batch_size and the engine's limit, for which the
/// buffers fit into what is free now, and the KV cache into options.kv_memory; at least 1.
int batch_that_fits(const std::shared_ptr<const LoadedEngine>& engine, SetupOptions options);

/// The scaling rules of the engine's rotary embeddings.
std::vector<ops::RopeScaling> rope_rules(const engine::Engine& engine);

}  // namespace millrace::runtime
