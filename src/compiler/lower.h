// From the rewritten graph to the bones of an engine: numbered values, the head, KV groups, limits.
#pragma once

#include "compiler/trace_model.h"
#include "engine/plan.h"

namespace millrace::compiler {

/// REQUIRES: the pipeline has run. Tactics, memory and weights are still to come.
engine::Engine lower(TracedModel traced, const BuildOptions& options);

/// Where the engine comes from: model, version, device, options.
void describe_build(const BuildInput& input, const BuildOptions& options,
                    const device::Properties& device, engine::Manifest* manifest);

}  // namespace millrace::compiler
