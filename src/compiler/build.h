// From a model folder to an engine.
#pragma once

#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_config.h"
#include "compiler/options.h"
#include "device/device.h"
#include "engine/plan.h"

namespace millrace::compiler {

struct BuildInput {
  std::string model;  // as the user named it
  const HfConfig& config;
  const Checkpoint* checkpoint = nullptr;  // null: weights are generated (options.dummy_seed)
};

/// Traces the model, runs the passes, chooses tactics and plans memory. The engine's assets are
/// left to the caller. Throws Error: unknown architecture, missing, extra or wrongly shaped
/// tensors, sizes that make no sense.
engine::Engine build_engine(const BuildInput& input, const BuildOptions& options,
                            device::Device& device, BuildReport* report);

}  // namespace millrace::compiler
