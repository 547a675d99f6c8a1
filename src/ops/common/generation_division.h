// The sizes of the kernels of attention_generation_mma_cuda, and how they and the attributes say
// what work is divided into. Host code, also where there is no CUDA.
#pragma once

#include <algorithm>

#include "ops/common/generation_work.h"

namespace millrace::ops::generation {

/// Which kernel: for up to 8 query rows of a KV head, or up to 16.
enum class Kind { kNarrow, kWide };

/// Whether there is a kernel for these heads.
constexpr bool has_kernel(int head_size) {
  return head_size == 64 || head_size == 80 || head_size == 96 || head_size == 128 ||
         head_size == 256;
}
/// Query rows are columns of matrix instructions: so many groups of 8.
constexpr int column_tiles(int head_size, Kind kind) {
  return kind == Kind::kWide && (head_size == 64 || head_size == 128) ? 2 : 1;
}
constexpr int blocks_on_multiprocessor(int head_size) {
  return head_size <= 128 ? 2 : 1;
}
/// Lines of a plan: of the blocks that run at once.
constexpr int plan_items(int head_size) {
  return kMultiprocessors * blocks_on_multiprocessor(head_size);
}

/// The sizes of a launch alone decide, and results are the same bits. Steps with context sequences
/// say nothing about the tokens of others: one is usual. `step_rows`: of all sequences.
inline Kind choose_kind(int64_t step_rows, const Lengths& lengths, int group) {
  if (lengths.sequences == 0) return Kind::kNarrow;
  const int64_t rows = lengths.first > 0 ? lengths.sequences : step_rows;
  const int64_t unit_rows = (rows + lengths.sequences - 1) / lengths.sequences * group;
  return unit_rows > 8 ? Kind::kWide : Kind::kNarrow;
}

/// Pieces of a sequence, so that one alone gives each multiprocessor of a large GPU a block, and
/// two if it is long.
inline int usual_pieces(int kv_heads) {
  return std::clamp((kMultiprocessors + kv_heads / 2) / kv_heads, 1, kMaxPieces);
}
inline int pieces_if_long(int kv_heads) {
  return std::clamp(2 * kMultiprocessors / kv_heads, 1, kMaxPieces);
}
inline int most_pieces(int kv_heads, int splits) {
  return splits > 0 ? splits : std::max(usual_pieces(kv_heads), pieces_if_long(kv_heads));
}

/// What attributes say about the division.
struct DividedHeads {
  int heads = 0;
  int kv_heads = 0;
  int head_size = 0;
  int window = 0;
  int sink_tokens = 0;
  int splits = 0;

  template <typename A>
  static DividedHeads of(const A& a) {
    return {a.heads, a.kv_heads, a.head_size, a.window, a.sink_tokens, a.splits};
  }
};

inline Division division_of(const DividedHeads& a, Kind kind) {
  const int columns = column_tiles(a.head_size, kind);
  return {.kv_heads = a.kv_heads,
          .group = a.heads / a.kv_heads,
          .window = a.window,
          .sink_tokens = a.sink_tokens,
          .splits = a.splits,
          .wanted_pieces = usual_pieces(a.kv_heads),
          .wanted_pieces_if_long = pieces_if_long(a.kv_heads),
          .unit_rows = 8 * columns,
          .blocks = plan_items(a.head_size)};
}

}  // namespace millrace::ops::generation
