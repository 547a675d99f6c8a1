#include "runtime/encoder_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "engine/weight_order.h"
#include "runtime/bind_frame.h"

namespace millrace::runtime {
namespace {

constexpr const char* kFeatures = "input_features";

bool brings_input(const StepSequence& sequence) {
  return !sequence.encoder_ids.empty() || !sequence.encoder_features.empty();
}

}  // namespace

StepBuffers::Arrays EncoderRunner::arrays_of(const engine::Engine& engine,
                                             const StepLimits& limits) {
  const engine::Manifest& m = engine.manifest;
  const int64_t rows = m.max_num_tokens, sequences = limits.max_sequences;
  return {{StepBuffers::kInputIds, m.encoder_features > 0 ? 0 : rows},
          {kFeatures, 2 * rows * m.encoder_features},
          {"position_ids", rows},
          {"query_start", sequences},
          {"query_length", sequences},
          {StepBuffers::kBlockTables, int64_t{limits.num_groups} * sequences * limits.max_blocks}};
}

EncoderRunner::EncoderRunner(const LoadedEngine& loaded, const StepLimits& limits, KvPool& kv,
                             std::byte* arena)
    : engine_(loaded.engine()),
      device_(*loaded.device),
      limits_(limits),
      program_(*engine_.encoder, engine_.manifest.model, device_),
      buffers_(arrays_of(engine_, limits), device_),
      uploaded_(device_.make_event()),
      frame_(program_.make_frame(Regime::kContext, arena)) {
  bind_frame(
      loaded, *engine_.encoder, engine::weight_order(engine_).encoder, kv,
      [&](const std::string& name) { return buffers_.address(name); }, frame_);
}

void EncoderRunner::run(const Batch& batch) {
  std::vector<size_t> part;
  int64_t rows = 0;
  for (size_t s = 0; s < batch.sequences.size(); ++s) {
    const StepSequence& sequence = batch.sequences[s];
    if (!brings_input(sequence)) continue;
    if (rows + sequence.encoder_length > engine_.manifest.max_num_tokens) {
      run_part(batch, part);
      part.clear();
      rows = 0;
    }
    part.push_back(s);
    rows += sequence.encoder_length;
  }
  if (!part.empty()) run_part(batch, part);
}

void EncoderRunner::run_part(const Batch& batch, const std::vector<size_t>& sequences) {
  // What the arrays held before may still be on its way. Not a wait for all that is enqueued: a
  // measurement holds that back until the step has been launched.
  uploaded_->wait();
  const auto count = static_cast<int64_t>(sequences.size());
  const int64_t width = limits_.max_blocks;
  int64_t rows = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const StepSequence& sequence = batch.sequences[sequences[i]];
    buffers_.host("query_start")[i] = static_cast<int32_t>(rows);
    buffers_.host("query_length")[i] = sequence.encoder_length;
    fill_input(sequence, rows);
    rows += sequence.encoder_length;
    for (int64_t g = 0; g < limits_.num_groups; ++g) {
      const BlockList& blocks = sequence.blocks[static_cast<size_t>(g)];
      std::copy(
          blocks.begin(), blocks.end(),
          buffers_.host(StepBuffers::kBlockTables) + (g * count + static_cast<int64_t>(i)) * width);
    }
  }
  const int64_t features = engine_.manifest.encoder_features;
  buffers_.upload(StepBuffers::kInputIds, features > 0 ? 0 : rows);
  buffers_.upload(kFeatures, 2 * rows * features);
  buffers_.upload("position_ids", rows);
  buffers_.upload("query_start", count);
  buffers_.upload("query_length", count);
  buffers_.upload(StepBuffers::kBlockTables, limits_.num_groups * count * width);
  uploaded_->record();

  ir::Bindings sizes;
  sizes.set("T", rows);
  sizes.set("F", 2 * rows);
  sizes.set("S", count);
  sizes.set("M", width);
  program_.run(frame_, sizes, {.begin = 0, .end = program_.num_launches()});
  ++runs_;
}

void EncoderRunner::fill_input(const StepSequence& sequence, int64_t first_row) {
  const int64_t rows = sequence.encoder_length, features = engine_.manifest.encoder_features;
  int32_t* positions = buffers_.host("position_ids") + first_row;
  std::iota(positions, positions + rows, 0);
  if (features == 0) {
    CHECK(static_cast<int64_t>(sequence.encoder_ids.size()) == rows);
    std::copy(sequence.encoder_ids.begin(), sequence.encoder_ids.end(),
              buffers_.host(StepBuffers::kInputIds) + first_row);
    return;
  }
  CHECK(static_cast<int64_t>(sequence.encoder_features.size()) == 2 * rows * features);
  std::memcpy(buffers_.host(kFeatures) + 2 * first_row * features, sequence.encoder_features.data(),
              sequence.encoder_features.size_bytes());
}

}  // namespace millrace::runtime
