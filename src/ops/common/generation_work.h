// How attention_generation_mma_cuda divides its work, from lengths that only the device knows.
//
// The keys of a sequence are tiles of 16 positions; a unit is one KV head of one sequence with up
// to 8 or 16 query rows, and its tiles are cut into pieces whose size follows from the sequence
// alone. Either each block of the grid has one unit, and the GPU finds a place for it; or, where
// that would leave multiprocessors idle, all tiles of all units, one after the other, are shared
// evenly by the blocks that run at once: sharer s has the pieces that begin in its part. So what a
// piece is does not depend on the batch, only who computes it does.
#pragma once

#include <cstdint>

#include "base/host_device.h"

namespace millrace::ops::generation {

inline constexpr int kTileKeys = 16;
inline constexpr int kQuarters = 4;  // of a piece; as many warps has a block
inline constexpr int kMaxPieces = 32;
inline constexpr int kMaxSequences = 1024;
inline constexpr int kLongTiles = 512;  // of a sequence that is cut into more pieces
/// Of a sequence that is one piece: joining pieces would take longer than their keys.
inline constexpr int kShortTiles = 32;
/// Multiprocessors of the GPU that grids are made for; others run them in more or less than one go.
inline constexpr int kMultiprocessors = 132;
inline constexpr int kMaxSharers = 2 * kMultiprocessors;

/// The smaller and the larger of two, on every device.
MILLRACE_HD inline int smaller(int a, int b) {
  return a < b ? a : b;
}
MILLRACE_HD inline int larger(int a, int b) {
  return a < b ? b : a;
}
/// Of numbers that are not negative.
MILLRACE_HD inline int div_up(int a, int b) {
  return static_cast<int>((static_cast<unsigned>(a) + static_cast<unsigned>(b) - 1) /
                          static_cast<unsigned>(b));
}

/// What attributes and the sizes of a step say about the division.
struct Division {
  int kv_heads, group;  // query heads that share a KV head
  int window, sink_tokens;
  int splits;                                // into so many pieces; 0: by length
  int wanted_pieces, wanted_pieces_if_long;  // of a sequence, if splits is 0
  int unit_rows;                             // query rows of a unit
  int blocks;                                // that run at once

  /// First visible position of the window that ends at `position`.
  MILLRACE_HD int window_begin(int position) const {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
  }
};

/// Lengths of the generation sequences, which begin at `first`.
struct Lengths {
  const int32_t* sequence_length;
  const int32_t* query_start;
  const int32_t* query_length;
  int first, sequences;
};

/// One sequence's tiles: first those with sinks, then those of the window.
struct SequencePlan {
  int tokens, length, row_start, first_position;
  int window_begin, sinks, sink_tiles, first_tile;
  int tiles, piece_tiles, pieces, units, row_tiles;

  /// Position of a tile's first key.
  MILLRACE_HD int tile_begin(int tile) const {
    return (tile < sink_tiles ? tile : tile - sink_tiles + first_tile) * kTileKeys;
  }
  /// Positions of a tile that count: sinks and window may begin and end inside.
  MILLRACE_HD int low(int tile) const { return tile < sink_tiles ? 0 : window_begin; }
  MILLRACE_HD int high(int tile) const { return tile < sink_tiles ? sinks : length; }
};

MILLRACE_HD inline int tiles_of_piece(const Division& d, int tiles) {
  if (d.splits > 0) return larger(1, div_up(tiles, d.splits));
  const int wanted = tiles < kLongTiles ? d.wanted_pieces : d.wanted_pieces_if_long;
  if (tiles <= kShortTiles) return kShortTiles;
  return larger(kShortTiles / 2, div_up(div_up(tiles, wanted), kQuarters) * kQuarters);
}

MILLRACE_HD inline SequencePlan plan_sequence(const Division& d, const Lengths& lengths,
                                              int sequence) {
  SequencePlan p;
  const int s = lengths.first + sequence;
  p.tokens = lengths.query_length[s];
  p.length = lengths.sequence_length[s];
  p.row_start = lengths.query_start[s];
  p.first_position = p.length - p.tokens;
  p.window_begin = d.window_begin(p.first_position);
  p.sinks = smaller(d.sink_tokens, p.window_begin);
  p.sink_tiles = div_up(p.sinks, kTileKeys);
  p.first_tile = p.window_begin / kTileKeys;
  p.tiles = p.sink_tiles + div_up(p.length, kTileKeys) - p.first_tile;
  p.piece_tiles = tiles_of_piece(d, p.tiles);
  // Usually one of each: divisions take long.
  p.pieces = p.tiles <= p.piece_tiles ? 1 : div_up(p.tiles, p.piece_tiles);
  const int rows = p.tokens * d.group;
  p.row_tiles = rows <= d.unit_rows ? 1 : div_up(rows, d.unit_rows);
  p.units = p.tokens == 0 ? 0 : d.kv_heads * p.row_tiles;
  return p;
}

/// Of all sequences of a step.
struct Totals {
  unsigned tiles, units, pieces;
  int longest_unit;  // in tiles
  int row_tiles;     // units of a sequence that read the same keys, at most
  int most_tokens;   // of a sequence

  MILLRACE_HD void add(const SequencePlan& plan) {
    if (plan.units == 0) return;
    const auto count = static_cast<unsigned>(plan.units);
    add(Totals{count * static_cast<unsigned>(plan.tiles), count,
               count * static_cast<unsigned>(plan.pieces), plan.tiles, plan.row_tiles,
               plan.tokens});
  }
  MILLRACE_HD void add(const Totals& other) {
    tiles += other.tiles;
    units += other.units;
    pieces += other.pieces;
    longest_unit = larger(longest_unit, other.longest_unit);
    row_tiles = larger(row_tiles, other.row_tiles);
    most_tokens = larger(most_tokens, other.most_tokens);
  }
};

/// Whether each block has a unit: block b KV head b % kv_heads of sequence b / kv_heads. It takes
/// as long as the longest unit, or as all of them on all multiprocessors; even parts take a little
/// more than the latter, as there are pieces to be joined.
MILLRACE_HD inline bool has_unit_blocks(const Division& d, const Totals& t) {
  constexpr unsigned kJoining = 8;  // takes as long as so many tiles
  if (t.row_tiles > 1) return false;
  if (t.pieces == t.units) return true;
  const unsigned part = t.tiles / static_cast<unsigned>(d.blocks);
  return static_cast<unsigned>(t.longest_unit) <= part + part / 16 + kJoining;
}

/// Who has which tiles.
class Shares {
 public:
  Shares() = default;
  MILLRACE_HD Shares(unsigned tiles, unsigned sharing) : total_(tiles), sharers_(sharing) {}

  /// The end of all for sharers that there are not.
  MILLRACE_HD unsigned begin(unsigned sharer) const {
    if (sharer >= sharers_) return total_;
    if (is_small()) return (sharer * total_ + sharers_ - 1) / sharers_;
    return static_cast<unsigned>((uint64_t{sharer} * total_ + sharers_ - 1) / sharers_);
  }
  MILLRACE_HD unsigned owner(unsigned tile) const {
    if (is_small()) return tile * sharers_ / total_;
    return static_cast<unsigned>(uint64_t{tile} * sharers_ / total_);
  }

 private:
  /// 64-bit divisions take long.
  MILLRACE_HD bool is_small() const { return total_ < (1u << 31) / sharers_ - 1; }

  unsigned total_ = 0, sharers_ = 1;
};

/// A walk over the pieces of one sharer, in order.
struct Walk {
  int sequence = 0, unit = 0, piece = 0;
  unsigned unit_start = 0;  // number of the unit's first tile
  SequencePlan plan;

  MILLRACE_HD unsigned start() const {
    return unit_start + static_cast<unsigned>(piece * plan.piece_tiles);
  }
  MILLRACE_HD int piece_begin() const { return piece * plan.piece_tiles; }
  MILLRACE_HD int piece_end() const {
    return smaller(piece_begin() + plan.piece_tiles, plan.tiles);
  }
};

/// To the first piece of the next unit, of which only start() is known if it is not before `end`.
/// Behind the last unit, start() is the number of all tiles.
MILLRACE_HD inline void next_unit(const Division& d, const Lengths& lengths, unsigned end,
                                  Walk* walk) {
  walk->piece = 0;
  walk->unit_start += static_cast<unsigned>(walk->plan.tiles);
  if (++walk->unit < walk->plan.units || walk->unit_start >= end) return;
  walk->unit = 0;
  while (++walk->sequence < lengths.sequences) {
    if (lengths.query_length[lengths.first + walk->sequence] == 0) continue;
    walk->plan = plan_sequence(d, lengths, walk->sequence);
    return;
  }
}

/// What a block of those that run at once has to know to begin: one line of the plan of a step.
struct alignas(16) WorkItem {
  int32_t unit_blocks;              // has_unit_blocks(); nothing else counts then
  int32_t has_work;                 // else nothing but `sharer` counts
  uint32_t sharer, sharers, tiles;  // its number, and of how many; tiles of all
  uint32_t end;                     // the first tile of the next one's part
  int32_t sequence, unit, piece;    // the first piece
  uint32_t unit_start;
  SequencePlan plan;  // of the sequence
  int32_t one_token;  // no sequence of the step has more; with unit_blocks

  MILLRACE_HD Walk walk() const { return {sequence, unit, piece, unit_start, plan}; }
};
inline constexpr int kItemWords = 24;
static_assert(sizeof(WorkItem) == kItemWords * sizeof(int32_t));

/// A block's own unit, of a plan with has_unit_blocks(). No work for blocks behind the last
/// sequence, and where it has no tokens. `sharer`: the block's number.
MILLRACE_HD inline WorkItem unit_item(const Division& d, const Lengths& lengths, unsigned sequence,
                                      unsigned head) {
  WorkItem item{};
  item.sharer = sequence * static_cast<unsigned>(d.kv_heads) + head;
  item.sharers = 1;
  if (sequence >= static_cast<unsigned>(lengths.sequences)) return item;
  item.sequence = static_cast<int>(sequence);
  item.unit = static_cast<int>(head);
  item.plan = plan_sequence(d, lengths, item.sequence);
  item.has_work = item.plan.tokens > 0 ? 1 : 0;
  item.tiles = item.end = static_cast<unsigned>(item.plan.tiles);
  return item;
}

/// The item of a sharer. offsets[s]: tiles of the sequences before s, for s up to and with the
/// number of sequences.
MILLRACE_HD inline WorkItem make_item(const Division& d, const Lengths& lengths,
                                      const unsigned* offsets, unsigned sharer) {
  WorkItem item{};
  const unsigned tiles = offsets[lengths.sequences];
  const Shares shares(tiles, static_cast<unsigned>(d.blocks));
  const unsigned begin = shares.begin(sharer);
  item.sharer = sharer;
  item.sharers = static_cast<unsigned>(d.blocks);
  item.tiles = tiles;
  item.end = shares.begin(sharer + 1);
  if (begin >= item.end) return item;
  Walk walk;
  int high = lengths.sequences;  // offsets[walk.sequence] <= begin < offsets[high]
  while (high - walk.sequence > 1) {
    const int middle = (walk.sequence + high) / 2;
    (offsets[middle] <= begin ? walk.sequence : high) = middle;
  }
  walk.plan = plan_sequence(d, lengths, walk.sequence);
  const unsigned tile = begin - offsets[walk.sequence];
  const auto of_unit = static_cast<unsigned>(walk.plan.tiles);
  const unsigned unit = tile / of_unit;
  walk.unit = static_cast<int>(unit);
  walk.unit_start = begin - tile + unit * of_unit;
  walk.piece = div_up(static_cast<int>(tile - unit * of_unit), walk.plan.piece_tiles);
  if (walk.piece == walk.plan.pieces) next_unit(d, lengths, item.end, &walk);
  if (walk.start() >= item.end) return item;  // no piece begins in its part
  item.has_work = 1;
  item.sequence = walk.sequence;
  item.unit = walk.unit;
  item.piece = walk.piece;
  item.unit_start = walk.unit_start;
  item.plan = walk.plan;
  return item;
}

/// The sharer that a block is. Blocks with numbers kMultiprocessors apart are on one
/// multiprocessor, as a GPU places them; they have neighbouring numbers: those read heads of the
/// same sequences, which lie side by side in the blocks of the cache.
MILLRACE_HD inline unsigned sharer_of(const Division& d, unsigned block) {
  const unsigned places = static_cast<unsigned>(d.blocks) / kMultiprocessors;
  return block % kMultiprocessors * places + block / kMultiprocessors;
}

}  // namespace millrace::ops::generation
