#include <algorithm>

#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/common/attention_cuda.cuh"
#include "ops/common/attention_units_cuda.h"

namespace millrace::ops {
namespace {

// Partial results of more rows than fit here are computed in several goes.
constexpr int64_t kMostPartialBytes = 32 << 20;
constexpr int64_t kMostRowsAtOnce = 256;
// About eight for each multiprocessor of a large GPU: what one step should have at least.
constexpr int kBlocksWanted = 1056;

/// Blocks that share one KV head of one sequence: more where there are few sequences. The result
/// does not depend on it.
int blocks_per_head(int sequences, int kv_heads) {
  int blocks = 1;
  while (blocks < kMaxUnitPieces && blocks * sequences * kv_heads < kBlocksWanted)
    blocks *= 2;
  return blocks;
}

/// Rows of generation sequences, at most. Lengths on the host are read in steps with context
/// sequences only: those are not captured.
int most_rows(const Launch& launch, int context_sequences) {
  int64_t rows = launch.in[0].dim(0);
  const auto* lengths = launch.in[1 + kHostQueryLength].as<int32_t>();
  for (int s = 0; s < context_sequences; ++s)
    rows -= lengths[s];
  return static_cast<int>(rows);
}

int64_t row_bytes(const AttentionGeneration& a) {
  return int64_t{a.heads} * kMaxUnitPieces * unit_partial_floats(a.v_head_size) *
         static_cast<int64_t>(sizeof(float));
}

int rows_at_once(const AttentionGeneration& a) {
  return static_cast<int>(
      std::clamp<int64_t>(kMostPartialBytes / row_bytes(a), 1, kMostRowsAtOnce));
}

}  // namespace

int64_t attention_generation_cuda_workspace(const Launch& launch, const device::Properties&) {
  const auto& a = launch.attrs<AttentionGeneration>();
  return std::min<int64_t>(launch.in[0].dim(0), rows_at_once(a)) * row_bytes(a);
}

void attention_generation_cuda(const Launch& launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const AttentionShape shape = AttentionShape::of(a);
  const int first = count_context_sequences(launch);
  const int sequences = static_cast<int>(launch.in[1].dim(0)) - first;
  const int rows = most_rows(launch, first);
  if (rows <= 0) return;
  const int at_once = rows_at_once(a);
  UnitPieces pieces{.splits = a.splits,
                    .partials = static_cast<float*>(launch.workspace),
                    .by_step_row = launch.in[0].dim(0) <= at_once};
  if (pieces.by_step_row) {
    pieces.num_rows = static_cast<int>(launch.in[0].dim(0));
    attend_units_cuda(launch, shape, first, sequences, blocks_per_head(sequences, a.kv_heads),
                      pieces);
    join_pieces_cuda(launch, shape, first, sequences, pieces);
    return;
  }
  pieces.num_rows = at_once;
  for (pieces.first_row = 0; pieces.first_row < rows; pieces.first_row += at_once) {
    attend_units_cuda(launch, shape, first, sequences, blocks_per_head(sequences, a.kv_heads),
                      pieces);
    join_pieces_cuda(launch, shape, first, sequences, pieces);
  }
}

}  // namespace millrace::ops
