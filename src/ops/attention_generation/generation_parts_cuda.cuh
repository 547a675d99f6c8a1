// How attention_generation_mma_cuda divides its work, on the device: lengths are known there only.
//
// The keys of a sequence are tiles of 16 positions; a unit is one KV head of one sequence with up
// to 8 or 16 query rows, and its tiles are cut into pieces whose size follows from the sequence
// alone. All tiles of all units, one after the other, are shared evenly by the blocks of the grid,
// or by their warps: sharer s has the pieces that begin in its part. So what a piece is does not
// depend on the batch, only who computes it does. For .cu files.
#pragma once

#include "ops/common/attention_cuda.cuh"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops::generation {

inline constexpr int kTileKeys = 16;
inline constexpr int kQuarters = 4;
inline constexpr int kMaxPieces = 32;
inline constexpr int kLongTiles = 512;  // of a sequence that is cut into more pieces
/// Of a sequence that is one piece: joining pieces would take longer than their keys.
inline constexpr int kShortTiles = 16;
/// Multiprocessors of the GPU that the grid is made for; others run it in more or less than one go.
inline constexpr int kMultiprocessors = 132;

inline constexpr int kMaxSharers = 8 * kMultiprocessors;

/// Pieces of a unit that are stored, by the sharer (a block or a warp) where the unit begins. Zeros
/// between launches; launches that overlap use different rows.
static __device__ unsigned arrivals[kNumberedQueues][kMaxSharers];

/// What a launch adds to the arguments that all attention kernels have.
struct Work {
  int sequences;                             // generation sequences, from first_sequence on
  int splits;                                // the attribute
  int wanted_pieces, wanted_pieces_if_long;  // of a sequence, if splits is 0
  int block_shift;  // log2 of tokens_per_block; 30 where one block holds a sequence
  int blocks_per_multiprocessor;
  int partial_slots;  // of a sharer: as many as a unit may have pieces
  int partial_rows;   // query rows of one of them
  float* partials;    // [sharers, partial_slots] of Sizes::partial_floats()
  int queue;          // whose counters (arrivals) this launch uses
};

/// One sequence's tiles: first those with sinks, then those of the window.
struct SequencePlan {
  int tokens, length, row_start, first_position;
  int window_begin, sinks, sink_tiles, first_tile;
  int tiles, piece_tiles, pieces, units, row_tiles;

  /// Position of a tile's first key.
  __device__ int tile_begin(int tile) const {
    return (tile < sink_tiles ? tile : tile - sink_tiles + first_tile) * kTileKeys;
  }
  /// Positions of a tile that count: sinks and window may begin and end inside.
  __device__ int low(int tile) const { return tile < sink_tiles ? 0 : window_begin; }
  __device__ int high(int tile) const { return tile < sink_tiles ? sinks : length; }
};

/// Of numbers that are not negative.
__device__ inline int div_up(int a, int b) {
  return static_cast<int>((static_cast<unsigned>(a) + static_cast<unsigned>(b) - 1) /
                          static_cast<unsigned>(b));
}

/// `unit_rows` query rows go into a unit.
__device__ inline SequencePlan plan_sequence(const AttentionArgs& a, const Work& work, int sequence,
                                             int unit_rows) {
  SequencePlan p;
  const int s = a.first_sequence + sequence;
  p.tokens = a.query_length[s];
  p.length = a.sequence_length[s];
  p.row_start = a.query_start[s];
  p.first_position = p.length - p.tokens;
  p.window_begin = static_cast<int>(a.window_begin(p.first_position));
  p.sinks = min(a.sink_tokens, p.window_begin);
  p.sink_tiles = div_up(p.sinks, kTileKeys);
  p.first_tile = p.window_begin / kTileKeys;
  p.tiles = p.sink_tiles + div_up(p.length, kTileKeys) - p.first_tile;
  if (work.splits > 0) {
    p.piece_tiles = max(1, div_up(p.tiles, work.splits));
  } else {
    const int wanted = p.tiles < kLongTiles ? work.wanted_pieces : work.wanted_pieces_if_long;
    const int least = p.tiles <= kShortTiles       ? kShortTiles
                      : p.tiles <= 3 * kShortTiles ? kShortTiles / 2
                                                   : kQuarters;
    p.piece_tiles = max(least, div_up(div_up(p.tiles, wanted), kQuarters) * kQuarters);
  }
  p.pieces = div_up(p.tiles, p.piece_tiles);
  p.row_tiles = div_up(p.tokens * a.group, unit_rows);
  p.units = p.tokens == 0 ? 0 : a.kv_heads * p.row_tiles;
  return p;
}

/// Of all sequences of a launch.
struct Totals {
  unsigned units, pieces;
  int longest_piece;  // in tiles
  unsigned scratch[kQuarters];
};

/// For blocks of kThreads. offsets[s]: tiles of the sequences before s, for s up to and with
/// work.sequences.
template <int kThreads>
__device__ inline void add_up_tiles(const AttentionArgs& a, const Work& work, int unit_rows,
                                    unsigned* offsets, Totals* totals) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  static_assert(kThreads == kQuarters * kWarp);
  if (thread == 0) *totals = {};
  __syncthreads();
  unsigned before = 0;
  for (int base = 0; base < work.sequences; base += kThreads) {
    unsigned sum = 0;
    if (base + thread < work.sequences) {
      const SequencePlan plan = plan_sequence(a, work, base + thread, unit_rows);
      const auto units = static_cast<unsigned>(plan.units);
      sum = units * static_cast<unsigned>(plan.tiles);
      atomicAdd(&totals->units, units);
      atomicAdd(&totals->pieces, units * static_cast<unsigned>(plan.pieces));
      if (units > 0) atomicMax(&totals->longest_piece, min(plan.piece_tiles, plan.tiles));
    }
    for (int step = 1; step < kWarp; step *= 2) {
      const unsigned below = __shfl_up_sync(0xffffffffu, sum, step);
      if (lane >= step) sum += below;
    }
    if (lane == kWarp - 1) totals->scratch[warp] = sum;
    __syncthreads();
    for (int w = 0; w < kThreads / kWarp; ++w) {
      if (w < warp) sum += totals->scratch[w];
    }
    if (base + thread < work.sequences) offsets[base + thread + 1] = before + sum;
    for (int w = 0; w < kThreads / kWarp; ++w)
      before += totals->scratch[w];
    __syncthreads();
  }
  if (thread == 0) offsets[0] = 0;
  __syncthreads();
}

/// Whether warps should work by themselves: an estimate of the time of both ways, in tiles of one
/// warp. Where a block's warps share pieces, meeting at the end of each takes them kMeeting; where
/// warps have pieces of one unit, joining them takes kJoining.
__device__ inline bool is_better_solo(const Totals& totals, unsigned tiles, unsigned blocks) {
  constexpr float kMeeting = 3, kJoining = 4;
  constexpr unsigned kLongUnit = 64;  // tiles; these are bound by memory, which likes neighbours
  if (totals.pieces == 0 || tiles > kLongUnit * totals.units) return false;
  const auto rounds = [&](unsigned sharers) { return (totals.pieces + sharers - 1) / sharers; };
  const float piece = static_cast<float>(tiles) / static_cast<float>(totals.pieces);
  const float alone = static_cast<float>(rounds(blocks * kQuarters)) * piece +
                      (totals.pieces > totals.units ? kJoining : 0);
  const float together = static_cast<float>(rounds(blocks)) * (piece / kQuarters + kMeeting);
  return fmaxf(alone, static_cast<float>(totals.longest_piece)) < together;
}

/// Warps that share what there is, of `most`: as many as get equally much where all units, or all
/// pieces, are alike. Whole units need not be joined.
__device__ inline unsigned solo_sharers(const Totals& totals, unsigned most) {
  for (const unsigned count : {totals.units, totals.pieces}) {
    if (count == 0) continue;
    const unsigned each = (count + most - 1) / most;
    const unsigned sharers = (count + each - 1) / each;
    if (4 * sharers >= 3 * most) return sharers;
  }
  return most;
}

/// Who has which tiles.
class Shares {
 public:
  Shares() = default;
  __device__ Shares(unsigned tiles, unsigned sharing) : total_(tiles), sharers_(sharing) {}

  /// The end of all for sharers that there are not.
  __device__ unsigned begin(unsigned sharer) const {
    if (sharer >= sharers_) return total_;
    if (is_small()) return (sharer * total_ + sharers_ - 1) / sharers_;
    return static_cast<unsigned>((uint64_t{sharer} * total_ + sharers_ - 1) / sharers_);
  }
  __device__ unsigned owner(unsigned tile) const {
    if (is_small()) return tile * sharers_ / total_;
    return static_cast<unsigned>(uint64_t{tile} * sharers_ / total_);
  }

 private:
  /// 64-bit divisions take long.
  __device__ bool is_small() const { return total_ < (1u << 31) / sharers_ - 1; }

  unsigned total_ = 0, sharers_ = 1;
};

/// A walk over the pieces of one block, in order.
struct Walk {
  int sequence = 0, unit = 0, piece = 0;
  unsigned unit_start = 0;  // number of the unit's first tile
  SequencePlan plan;

  __device__ unsigned start() const {
    return unit_start + static_cast<unsigned>(piece * plan.piece_tiles);
  }
  __device__ int piece_begin() const { return piece * plan.piece_tiles; }
  __device__ int piece_end() const { return min(piece_begin() + plan.piece_tiles, plan.tiles); }
};

/// To the first piece of the next unit. Behind the last unit, start() is the number of all tiles.
__device__ inline void next_unit(const AttentionArgs& a, const Work& work, const unsigned* offsets,
                                 int unit_rows, Walk* walk) {
  walk->piece = 0;
  walk->unit_start += static_cast<unsigned>(walk->plan.tiles);
  if (++walk->unit < walk->plan.units) return;
  walk->unit = 0;
  do {
    if (++walk->sequence == work.sequences) return;
  } while (offsets[walk->sequence] == offsets[walk->sequence + 1]);
  walk->plan = plan_sequence(a, work, walk->sequence, unit_rows);
}

/// The first piece that begins at tile `begin` or later, or the end of the unit before it.
/// REQUIRES: there is such a tile.
__device__ inline Walk find_piece(const AttentionArgs& a, const Work& work, const unsigned* offsets,
                                  int unit_rows, unsigned begin) {
  Walk walk;
  int high = work.sequences;  // offsets[walk.sequence] <= begin < offsets[high]
  while (high - walk.sequence > 1) {
    const int middle = (walk.sequence + high) / 2;
    (offsets[middle] <= begin ? walk.sequence : high) = middle;
  }
  walk.plan = plan_sequence(a, work, walk.sequence, unit_rows);
  const unsigned tile = begin - offsets[walk.sequence];
  const auto tiles = static_cast<unsigned>(walk.plan.tiles);
  const unsigned unit = tile / tiles;
  walk.unit = static_cast<int>(unit);
  walk.unit_start = begin - tile + unit * tiles;
  walk.piece = div_up(static_cast<int>(tile - unit * tiles), walk.plan.piece_tiles);
  return walk;
}

}  // namespace millrace::ops::generation
