// Attention in fp32 on CUDA cores, for all element types and head sizes up to 256: what both
// attention ops run where nothing faster fits. The query rows of one sequence that share a KV head
// go through K and V together, a unit of up to 16 at a time; a unit's keys may be split into pieces
// for several blocks (flash-decoding), whose partial results join_pieces_cuda() adds up in order.
#pragma once

#include "ops/common/attention_ref.h"

namespace millrace::ops {

inline constexpr int kMaxUnitPieces = 32;

/// How units are split, and where partial results go. Only the attributes and a sequence's own
/// length decide on the pieces, so a row has the same bits in every batch.
struct UnitPieces {
  int splits = 0;             // exactly so many pieces; 0: by the number of keys
  bool whole = false;         // one piece each, written to the output at once
  float* partials = nullptr;  // [rows, heads, kMaxUnitPieces] of unit_partial_floats()
  // Rows of generation sequences are counted from 0, in the order of sequences, or by their number
  // in the step; `num_rows` of them from `first_row` on are computed by this launch.
  bool by_step_row = false;
  int first_row = 0, num_rows = 0;
};

/// Floats of a partial result: v_head_size sums, padded, then the largest logit and the sum of
/// exponentials.
inline int unit_partial_floats(int v_head_size) {
  return (v_head_size + 3) / 4 * 4 + 4;
}

/// Why these kernels cannot run a launch; empty when they can.
std::string why_no_units(const AttentionShape& shape);

/// Sequences [first, first + count). `blocks` blocks share the work of one KV head of one sequence:
/// its units, or their pieces.
void attend_units_cuda(const Launch& launch, const AttentionShape& shape, int first, int count,
                       int blocks, const UnitPieces& pieces);

/// The second step where units were split.
void join_pieces_cuda(const Launch& launch, const AttentionShape& shape, int first, int count,
                      const UnitPieces& pieces);

/// Query rows of a unit.
int unit_rows(const AttentionShape& shape, bool whole);

}  // namespace millrace::ops
