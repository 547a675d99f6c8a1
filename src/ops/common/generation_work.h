// How attention_generation_mma_cuda divides its work, from lengths that only the device knows.
//
// The keys of a sequence are tiles of 16 positions; a unit is one KV head of one sequence with up
// to 8 or 16 query rows, and its tiles are cut into pieces whose size follows from the sequence
// alone. All tiles of all units, one after the other, are shared evenly by blocks or by warps:
// sharer s has the pieces that begin in its part. So what a piece is does not depend on the batch,
// only who computes it does.
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
inline constexpr int kShortTiles = 16;
/// Multiprocessors of the GPU that grids are made for; others run them in more or less than one go.
inline constexpr int kMultiprocessors = 132;
inline constexpr int kMaxSharers = 8 * kMultiprocessors;  // warps of a grid

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
  int blocks;                                // of the grid
  bool warps_may_share;                      // else blocks do
  int tile_bytes;                            // of 16 keys and values of one head, for estimates

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
  const int least = tiles <= kShortTiles       ? kShortTiles
                    : tiles <= 3 * kShortTiles ? kShortTiles / 2
                                               : kQuarters;
  return larger(least, div_up(div_up(tiles, wanted), kQuarters) * kQuarters);
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
  p.pieces = div_up(p.tiles, p.piece_tiles);
  p.row_tiles = div_up(p.tokens * d.group, d.unit_rows);
  p.units = p.tokens == 0 ? 0 : d.kv_heads * p.row_tiles;
  return p;
}

/// Of all sequences of a step.
struct Totals {
  unsigned tiles, units, pieces;
  int longest_piece;  // in tiles
};

/// Who shares the tiles: as many warps, or as many blocks, of the grid.
struct Sharing {
  bool by_warps;
  unsigned sharers;
};

/// As many of `most` as get equally much where `count` units, or pieces, are alike. REQUIRES: there
/// are some.
MILLRACE_HD inline unsigned even_sharers(unsigned count, unsigned most) {
  const unsigned each = (count + most - 1) / most;
  return (count + each - 1) / each;
}

/// An estimate of the cycles that a way to share takes. The slowest of three counts: what all
/// multiprocessors get from memory, what one of them takes in, and what a warp does with one tile
/// after the other, of which the first have nothing to overlap with. Meetings of a block's warps,
/// and joining what was stored, come on top. In integers, so that every device finds the same.
/// `piece`: sixteenths of a tile in a piece, on average. REQUIRES: there are pieces.
MILLRACE_HD inline uint64_t cycles_of(const Division& d, const Totals& t, const Sharing& s,
                                      uint64_t piece) {
  constexpr uint64_t kBytesOfAll = uint64_t{22} * kMultiprocessors, kBytesOfOne = 50;  // in a cycle
  constexpr uint64_t kTile = 900, kMeeting = 700, kJoining = 3000;
  const uint64_t pieces = (t.pieces + s.sharers - 1) / s.sharers;  // of a sharer, at most
  const auto longest = static_cast<uint64_t>(t.longest_piece);
  uint64_t tiles = (pieces * piece + 15) / 16;
  if (tiles < longest) tiles = longest;
  const unsigned used = s.sharers < t.pieces ? s.sharers : t.pieces;
  const uint64_t neighbours = (used + kMultiprocessors - 1) / kMultiprocessors;
  const auto bytes = static_cast<uint64_t>(d.tile_bytes);
  const uint64_t all = t.tiles * bytes / kBytesOfAll;
  const uint64_t one = neighbours * tiles * bytes / kBytesOfOne;
  const uint64_t chain = s.by_warps ? tiles * kTile : tiles * kTile / kQuarters;
  uint64_t cycles = all < one ? one : all;
  if (cycles < chain) cycles = chain;
  cycles += chain / 4;
  if (!s.by_warps) cycles += pieces * kMeeting;
  const bool has_parts = t.pieces > t.units && t.units % s.sharers != 0;
  return cycles + (has_parts ? kJoining : 0);
}

/// Long units are bound by memory, which likes warps that read neighbours, and all blocks at work.
MILLRACE_HD inline bool has_long_units(const Totals& t) {
  constexpr unsigned kLongUnit = 64;
  return t.tiles > kLongUnit * t.units;
}

/// The ways to share that there are: by blocks or by warps, all of them or as many as get whole
/// units or whole pieces.
MILLRACE_HD inline int count_ways(const Division& d) {
  return d.warps_may_share ? 5 : 2;
}
MILLRACE_HD inline Sharing way_to_share(const Division& d, const Totals& t, int way) {
  const bool by_warps = way >= 2;
  const auto most = static_cast<unsigned>(by_warps ? d.blocks * kQuarters : d.blocks);
  const unsigned count = way == 3 ? t.pieces : t.units;
  return {by_warps, way % 2 == 0 && way < 4 ? most : even_sharers(count, most)};
}
/// Orders the ways by cycles_of(), those that take equally long by their number. REQUIRES: there
/// are pieces.
MILLRACE_HD inline uint64_t order_of_way(const Division& d, const Totals& t, int way) {
  const uint64_t piece = uint64_t{t.tiles} * 16 / t.pieces;
  return cycles_of(d, t, way_to_share(d, t, way), piece) * 8 + static_cast<uint64_t>(way);
}

/// The way that is estimated to take least.
MILLRACE_HD inline Sharing choose_sharing(const Division& d, const Totals& t) {
  if (t.pieces == 0 || has_long_units(t)) return {false, static_cast<unsigned>(d.blocks)};
  uint64_t least = order_of_way(d, t, 0);
  for (int way = 1; way < count_ways(d); ++way) {
    const uint64_t order = order_of_way(d, t, way);
    if (order < least) least = order;
  }
  return way_to_share(d, t, static_cast<int>(least % 8));
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

/// What a warp of the grid has to know to begin: one line of the plan of a step. Warps of a block
/// that shares its pieces have the same.
struct alignas(16) WorkItem {
  int32_t has_work;  // else nothing but by_warps counts
  int32_t by_warps;
  uint32_t sharer, sharers, tiles;  // its number, and of how many; tiles of all
  uint32_t end;                     // the first tile of the next one's part
  int32_t sequence, unit, piece;    // the first piece
  uint32_t unit_start;
  SequencePlan plan;  // of the sequence
  int32_t unused;

  MILLRACE_HD Walk walk() const { return {sequence, unit, piece, unit_start, plan}; }
};
inline constexpr int kItemWords = 24;
static_assert(sizeof(WorkItem) == kItemWords * sizeof(int32_t));

/// The item of a sharer. offsets[s]: tiles of the sequences before s, for s up to and with the
/// number of sequences.
MILLRACE_HD inline WorkItem make_item(const Division& d, const Lengths& lengths,
                                      const unsigned* offsets, const Sharing& sharing,
                                      unsigned sharer) {
  WorkItem item{};
  const unsigned tiles = offsets[lengths.sequences];
  const Shares shares(tiles, sharing.sharers);
  const unsigned begin = shares.begin(sharer);
  item.by_warps = sharing.by_warps ? 1 : 0;
  item.sharer = sharer;
  item.sharers = sharing.sharers;
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

/// The sharer that warp `warp` of block `block` is, or belongs to; behind the last one if none.
/// Blocks with numbers kMultiprocessors apart are on one multiprocessor, as a GPU places them. The
/// multiprocessors get equally many sharers, with neighbouring numbers: those read heads of the
/// same sequences, which lie side by side in the blocks of the cache.
MILLRACE_HD inline unsigned sharer_of(const Division& d, const Sharing& sharing, unsigned block,
                                      unsigned warp) {
  const unsigned place = block / kMultiprocessors;  // of the block
  const unsigned blocks = static_cast<unsigned>(d.blocks) / kMultiprocessors;
  const Shares of_all(sharing.sharers, kMultiprocessors);
  const unsigned sharer =
      of_all.begin(block % kMultiprocessors) + (sharing.by_warps ? warp * blocks + place : place);
  return sharer < of_all.begin(block % kMultiprocessors + 1) ? sharer : sharing.sharers;
}

}  // namespace millrace::ops::generation
