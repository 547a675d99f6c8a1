// A model folder as the API opens it: its files, and the key under which its engine is cached.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/generation_defaults.h"
#include "checkpoint/hf_config.h"
#include "compiler/options.h"
#include "device/device.h"
#include "engine/plan.h"
#include "millrace/engine.h"

namespace millrace::api {

struct ModelSource {
  std::string folder;
  HfConfig config;
  std::optional<Checkpoint> checkpoint;  // none: weights are generated

  /// Resolves and reads everything but the weights' bytes. Throws Error.
  static ModelSource open(const std::string& model, bool dummy_weights);

  /// Tokenizer, templates, config.json and generation_config.json, to be kept in the engine.
  std::vector<engine::Asset> assets() const;
  /// Hash of what the engine follows from: files (size, time, headers), options, version,
  /// instruction set.
  std::string cache_key(const compiler::BuildOptions& options,
                        const device::Properties& device) const;
};

compiler::BuildOptions build_options(const EngineOptions& options, const ModelSource& source);

/// SamplingParams from what generation_config.json says.
SamplingParams sampling_from(const GenerationDefaults& defaults);

}  // namespace millrace::api
