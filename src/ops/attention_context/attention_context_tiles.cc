#include "ops/attention_context/attention_context_tiles.h"

#include <algorithm>

#include "ops/common/attention_tables.h"

namespace millrace::ops {
namespace {

constexpr int64_t kRowsOfTile = 96;   // a multiple of the columns that kernels take at once
constexpr int64_t kColumnGrain = 48;  // those of the widest kernel
constexpr int64_t kValueGrain = 8;    // rows that the widest kernel takes at once
constexpr int64_t kFloatsPerLine = 16;

int64_t round_up(int64_t value, int64_t grain) {
  return (value + grain - 1) / grain * grain;
}

}  // namespace

ContextSizes::ContextSizes(const AttentionShape& shape) {
  positions = std::max<int64_t>(1, kRowsOfTile / shape.group());
  columns = round_up(positions * shape.group(), kColumnGrain);
  v_padded = round_up(shape.v_head_size, kValueGrain);
  const int64_t q = shape.head_size * columns, out = v_padded * columns;
  const int64_t keys = kKeyTile * round_up(shape.head_size, kFloatsPerLine);
  const int64_t values = kKeyTile * round_up(v_padded, kFloatsPerLine);
  floats = round_up(q + out + keys + values + (kKeyTile + 4) * columns, kFloatsPerLine);
}

ContextTiles::ContextTiles(const SequenceRows& sequences, const AttentionShape& shape)
    : sequences_(sequences), kv_heads_(shape.kv_heads), positions_(ContextSizes(shape).positions) {
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    count_ += tiles_of(s) * kv_heads_;
    if (tiles_of(s) == 0) continue;
    work_ += static_cast<double>(sequences.query_length[s]) * sequences.sequence_length[s] *
             shape.heads * shape.head_size;
  }
}

int64_t ContextTiles::tiles_of(int64_t sequence) const {
  if (!sequences_.is(sequence, RequestType::kContext)) return 0;
  return (sequences_.query_length[sequence] + positions_ - 1) / positions_;
}

QueryTile ContextTiles::at(int64_t index) const {
  QueryTile tile;
  while (index >= tiles_of(tile.sequence) * kv_heads_) {
    index -= tiles_of(tile.sequence) * kv_heads_;
    ++tile.sequence;
  }
  const int64_t first = (tiles_of(tile.sequence) - 1 - index / kv_heads_) * positions_;
  tile.kv_head = index % kv_heads_;
  tile.first_row = sequences_.query_start[tile.sequence] + first;
  tile.first_position = sequences_.first_position(tile.sequence) + first;
  tile.positions = std::min(positions_, sequences_.query_length[tile.sequence] - first);
  return tile;
}

int64_t attention_context_workspace(const Launch& launch, const device::Properties& properties) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionContext>());
  const int64_t floats = properties.threads * ContextSizes(shape).floats;
  return (floats + LogitTables::floats(shape)) * static_cast<int64_t>(sizeof(float));
}

}  // namespace millrace::ops
