#include "ops/attention_generation/attention_generation_plan.h"

#include <algorithm>

namespace millrace::ops {
namespace {

constexpr int64_t kMaxSlots = 8192;
constexpr int64_t kFloatsPerLine = 16;

int64_t div_ceil(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

int64_t partial_floats(int v_head_size) {
  return (div_ceil(v_head_size, kFloatsPerLine) + 1) * kFloatsPerLine;
}

int64_t GenerationPlan::num_slots(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0) * launch.attrs<AttentionGeneration>().heads;
  return std::clamp(rows * kMaxPieces, int64_t{kMaxUnitRows} * kMaxPieces, kMaxSlots);
}

int64_t GenerationPlan::workspace_bytes(const Launch& launch) {
  const int64_t floats = partial_floats(launch.attrs<AttentionGeneration>().v_head_size);
  const auto per_slot = static_cast<int64_t>(sizeof(float)) * floats +
                        static_cast<int64_t>(sizeof(GenerationUnit) + sizeof(GenerationTask));
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionGeneration>());
  return num_slots(launch) * per_slot +
         LogitTables::floats(shape) * static_cast<int64_t>(sizeof(float));
}

GenerationPlan::GenerationPlan(const Launch& launch)
    : shape_(AttentionShape::of(launch.attrs<AttentionGeneration>())),
      sequences_(attention_rows(launch, shape_)),
      splits_(launch.attrs<AttentionGeneration>().splits),
      slots_(num_slots(launch)),
      slot_floats_(partial_floats(shape_.v_head_size)),
      partials_(static_cast<float*>(launch.workspace)),
      units_(reinterpret_cast<GenerationUnit*>(partials_ + slots_ * slot_floats_)),
      tasks_(reinterpret_cast<GenerationTask*>(units_ + slots_)),
      tables_(launch, shape_, reinterpret_cast<float*>(tasks_ + slots_)) {}

bool GenerationPlan::advance_to_rows() {
  while (sequence_ < sequences_.num_sequences) {
    const int64_t rows = int64_t{sequences_.query_length[sequence_]} * shape_.group();
    if (sequences_.is(sequence_, RequestType::kGeneration) && rows > 0) {
      if (row_ < rows) return true;
      row_ = 0;
      if (++kv_head_ < shape_.kv_heads) return true;
    }
    kv_head_ = 0;
    row_ = 0;
    ++sequence_;
  }
  return false;
}

GenerationUnit GenerationPlan::unit_at_cursor() const {
  const int64_t all_rows = int64_t{sequences_.query_length[sequence_]} * shape_.group();
  GenerationUnit unit{};
  unit.sequence = static_cast<int32_t>(sequence_);
  unit.kv_head = kv_head_;
  unit.first_row = row_;
  unit.rows = static_cast<int32_t>(std::min<int64_t>(all_rows - row_, kMaxUnitRows));
  const int64_t first = sequences_.first_position(sequence_);
  const int64_t last_token = (row_ + unit.rows - 1) / shape_.group();
  unit.window_begin = shape_.window_begin(first + row_ / shape_.group());
  unit.sinks = static_cast<int32_t>(std::min<int64_t>(shape_.sink_tokens, unit.window_begin));
  unit.keys = unit.sinks + first + last_token + 1 - unit.window_begin;
  if (splits_ > 0) {
    unit.pieces = splits_;
    unit.piece_keys = static_cast<int32_t>(div_ceil(unit.keys, splits_));
  } else {
    const int64_t keys =
        std::max(kUsualPieceKeys, div_ceil(div_ceil(unit.keys, kMaxPieces), 64) * 64);
    unit.piece_keys = static_cast<int32_t>(keys);
    unit.pieces = static_cast<int32_t>(div_ceil(unit.keys, keys));
  }
  return unit;
}

bool GenerationPlan::next_wave(GenerationWave* wave) {
  int64_t num_units = 0, num_tasks = 0, used = 0;
  wave->work = 0;
  while (advance_to_rows()) {
    GenerationUnit unit = unit_at_cursor();
    const int64_t slots = int64_t{unit.rows} * unit.pieces;
    if (used + slots > slots_) break;
    unit.slot = static_cast<int32_t>(used);
    used += slots;
    for (int32_t piece = 0; piece < unit.pieces; ++piece)
      tasks_[num_tasks++] = {static_cast<int32_t>(num_units), piece};
    wave->work +=
        static_cast<double>(unit.keys) * unit.rows * (shape_.head_size + shape_.v_head_size);
    units_[num_units++] = unit;
    row_ += unit.rows;
  }
  wave->units = {units_, static_cast<size_t>(num_units)};
  wave->tasks = {tasks_, static_cast<size_t>(num_tasks)};
  return num_units > 0;
}

}  // namespace millrace::ops
