// How a context step is divided: into tiles of query positions, each with all heads that share one
// KV head. A tile is one thread's work; keys are taken in tiles on a fixed grid of positions, so
// that a row's result does not depend on the chunk it came in.
#pragma once

#include <cstdint>

#include "ops/attention_context/attention_context.h"
#include "ops/common/attention_ref.h"

namespace millrace::ops {

inline constexpr int64_t kKeyTile = 64;

/// Sizes of the work of one thread, in floats: rows are (position, head of the group).
struct ContextSizes {
  explicit ContextSizes(const AttentionShape& shape);

  int64_t positions;  // of a query tile
  int64_t columns;    // its rows, padded: matrices in the workspace have a column per row
  int64_t v_padded;   // Dv, padded
  int64_t floats;     // of the workspace of one thread
};

struct QueryTile {
  int64_t sequence = 0, kv_head = 0;
  int64_t first_row = 0;       // in the step
  int64_t first_position = 0;  // of that row
  int64_t positions = 0;
};

/// The tiles of a step by number: the last ones of a sequence, which see the most keys, first.
class ContextTiles {
 public:
  ContextTiles(const SequenceRows& sequences, const AttentionShape& shape);

  int64_t count() const { return count_; }
  double work() const { return work_; }  // multiplications, roughly
  QueryTile at(int64_t index) const;

 private:
  int64_t tiles_of(int64_t sequence) const;

  const SequenceRows& sequences_;
  int64_t kv_heads_, positions_;
  int64_t count_ = 0;
  double work_ = 0;
};

int64_t attention_context_workspace(const Launch& launch, const device::Properties& properties);

}  // namespace millrace::ops
