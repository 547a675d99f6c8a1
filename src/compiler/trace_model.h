// The first step of a build: find the model's family, check its limits, trace it.
#pragma once

#include <optional>

#include "compiler/build.h"
#include "ir/graph.h"

namespace millrace::compiler {

/// What a build asks for once `auto` and zeros are replaced.
struct ResolvedLimits {
  ComputeType compute = ComputeType::kFp32;
  ir::DType kv_dtype = ir::DType::kF32;
  int64_t vocab_size = 0, max_positions = 0;
  int64_t max_sequences = 0;  // requests times beams
  int64_t max_seq_len = 0;
  int64_t max_num_tokens = 0;
  engine::ModelKind kind = engine::ModelKind::kDecoder;
  int64_t max_encoder_len = 0, encoder_features = 0;  // as in engine::Manifest
};

struct TracedModel {
  ir::Graph graph{"model"};
  std::optional<ir::Graph> encoder;
  ResolvedLimits limits;
};

TracedModel trace_model(const BuildInput& input, const BuildOptions& options, device::Kind device,
                        BuildReport* report);

}  // namespace millrace::compiler
