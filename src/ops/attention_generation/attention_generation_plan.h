// How a generation step is divided: into units (query rows that share a KV head) and pieces of the
// keys that a unit sees. Only shapes decide, so that no result depends on the number of threads or
// on other sequences.
#pragma once

#include <cstdint>
#include <span>

#include "ops/attention_generation/attention_generation.h"
#include "ops/common/attention_tables.h"

namespace millrace::ops {

inline constexpr int kMaxUnitRows = 16;          // query rows that share one pass over K and V
inline constexpr int64_t kUsualPieceKeys = 256;  // pieces of short sequences
inline constexpr int64_t kMaxPieces = 64;        // long sequences have longer pieces instead

/// Query rows of one sequence that read the same K and V: `rows` rows from `first_row` of
/// (token, head of the group), tokens first.
struct GenerationUnit {
  int32_t sequence, kv_head, first_row, rows;
  int32_t pieces;
  int32_t piece_keys;    // the last piece may be shorter, or empty
  int32_t slot;          // of its partial results: pieces * rows of them, [piece, row]
  int32_t sinks;         // the keys it sees are positions [0, sinks) and then those from
  int64_t window_begin;  // here on,
  int64_t keys;          // so many in all
};

/// One piece of one unit.
struct GenerationTask {
  int32_t unit, piece;
};

/// A part of the step that fits into the workspace: plan_wave() fills one after the other.
struct GenerationWave {
  std::span<GenerationUnit> units;
  std::span<GenerationTask> tasks;
  double work = 0;  // multiplications
};

class GenerationPlan {
 public:
  explicit GenerationPlan(const Launch& launch);

  /// False when all is done.
  bool next_wave(GenerationWave* wave);

  /// The partial result of one row over one piece: [Dv] sums, padded, then the largest logit and
  /// the sum of exponentials.
  float* partial(int64_t slot) const { return partials_ + slot * slot_floats_; }
  int64_t slot_floats() const { return slot_floats_; }

  const SequenceRows& sequences() const { return sequences_; }
  const AttentionShape& shape() const { return shape_; }
  const LogitTables& tables() const { return tables_; }

  static int64_t workspace_bytes(const Launch& launch);

 private:
  static int64_t num_slots(const Launch& launch);
  GenerationUnit unit_at_cursor() const;
  bool advance_to_rows();

  AttentionShape shape_;
  SequenceRows sequences_;
  int splits_;
  int64_t slots_, slot_floats_;
  float* partials_;
  GenerationUnit* units_;
  GenerationTask* tasks_;
  LogitTables tables_;
  int64_t sequence_ = 0;
  int32_t kv_head_ = 0, row_ = 0;  // the next unit
};

/// Floats from one row's partial result to the next.
int64_t partial_floats(int v_head_size);

}  // namespace millrace::ops
