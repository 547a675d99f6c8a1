// Units of tiles as blocks that stay take them, and each warp's ring of tiles, which the copy
// engine fills: from this unit, then from the block's next one. For .cu files.
#pragma once

#include <algorithm>

#include "device/cuda/tensor_map.h"
#include "ops/attention_generation/generation_token_cuda.cuh"
#include "ops/common/hopper.cuh"
#include "ops/common/streamed_cuda.cuh"

namespace millrace::ops::generation {

/// Units that the blocks of a launch have taken beyond their first two. Zeros between launches;
/// launches that overlap use different ones.
static __device__ unsigned units_taken[kNumberedQueues];

/// A load that the compiler leaves where it is, in front of the first use of any of them.
__device__ inline int load_here(const int32_t* from) {
  int x;
  asm volatile("ld.global.cg.b32 %0, [%1];" : "=r"(x) : "l"(from));
  return x;
}

__device__ inline void prefetch_line(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory");
}

/// Of the rings in shared memory: the copy engine swaps chunks by address.
inline constexpr int kBoxAlignment = 1024;

/// What is cached of a layer, as the copy engine sees it: [blocks, K and V, parts of a head, KV
/// heads x tokens of a block, up to 128 bytes], and the scales: [blocks, K and V, KV heads x
/// tokens].
struct CacheMaps {
  CUtensorMap vectors, scales;
};

/// What the warps of a block tell each other, beside the sums.
template <typename S>
struct StreamExchange {
  float2 stats[S::kWarps][S::kRows];
  uint64_t barriers[S::kWarps][S::kStages];  // of the stages of their rings
  unsigned after_next;                       // the unit that is taken then
  int partial[kMaxPieces];                   // numbers of partial results, in the order of pieces
  int num_partials;
  bool is_last;
  Walk ahead;    // where units are shared: to the part after the next
  unsigned end;  // of the block's share
};

/// The item of this block, see load_item().
__device__ inline WorkItem load_shared_item(const Work& work) {
  constexpr int kPacks = static_cast<int>(sizeof(WorkItem) / sizeof(uint4));
  const auto* from = reinterpret_cast<const uint4*>(work.items + blockIdx.x);
  uint4 packs[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i)
    packs[i] = __ldcg(from + i);
  WorkItem item;
  memcpy(&item, packs, sizeof(item));
  return item;
}

/// TokenOf: a Token, see there. What a launch has of T, sizes and so on follows from it.
template <typename TokenOf, typename Stored>
class Ring : protected TokenOf {
 public:
  using S = typename TokenOf::S;
  using Exchange = StreamExchange<S>;

  /// shared: aligned to 1024 bytes, as the boxes' chunks change places by address. The rings lie at
  /// its beginning, the places of the warps behind them.
  __device__ Ring(const AttentionArgs& a, const Work& work, const CacheMaps& maps,
                  std::byte* shared, int place_bytes, Exchange& exchange)
      : TokenOf(a, work, Shares(), shared, shared + S::kRingBytes, place_bytes, exchange.stats),
        maps_(maps),
        x_(exchange),
        units_(static_cast<unsigned>(work.lengths.sequences * a.kv_heads)) {}

  /// Of a unit, as it comes from memory.
  struct Found {
    int sequence, length, row, tokens, block_of_lane;
  };

  /// Brings what later units look up to the second-level cache, before tiles fill the way there.
  __device__ void prefetch_tables() const {
    const int sequence = static_cast<int>(blockIdx.x);
    if (warp() != 1 || sequence >= w_.lengths.sequences) return;
    constexpr int kInLine = 128 / static_cast<int>(sizeof(int32_t));
    if (lane() == 0) prefetch_line(blocks_of(sequence));
    if (lane() == 1 && sequence % kInLine == kInLine - 1) {
      const int s = w_.lengths.first + sequence;
      prefetch_line(w_.lengths.sequence_length + s);
      prefetch_line(w_.lengths.query_start + s);
      prefetch_line(w_.lengths.query_length + s);
    }
  }

  /// Starts to load what is known of a unit, without a branch, so that the loads for several units
  /// are on their way together. Behind the last unit: of that one.
  __device__ Found find(unsigned unit) const {
    const unsigned there = unit < units_ ? unit : units_ - 1;
    Found found;
    found.sequence = static_cast<int>(there / static_cast<unsigned>(a_.kv_heads));
    const int s = w_.lengths.first + found.sequence;
    found.length = load_here(w_.lengths.sequence_length + s);
    found.block_of_lane =
        load_here(blocks_of(found.sequence) + (lane() < a_.blocks_per_sequence ? lane() : 0));
    found.tokens = load_here(w_.lengths.query_length + s);
    found.row = load_here(w_.lengths.query_start + s);
    return found;
  }

  /// With what was found of the block's first two units.
  __device__ void look_up_first(const Found& now, const Found& next) {
    now_ = ahead_of(blockIdx.x, now);
    next_ = ahead_of(blockIdx.x + gridDim.x, next);
  }

 protected:
  static constexpr bool kOneToken = S::kColumns == 1;  // of each sequence
  using TokenOf::a_, TokenOf::w_, TokenOf::lane, TokenOf::warp;

  /// A unit, or some of its pieces, as far as all layers have it in common. No tiles: there is
  /// none, or no token.
  struct Ahead {
    int sequence = 0, head = 0, tiles = 0, length = 0, row = 0;
    int unit = 0, tokens = 0;  // the unit's number in the sequence
    int first_piece = 0;
    int first_tile = 0, end_tile = 0;  // of these pieces
    unsigned unit_start = 0;           // number of the unit's first tile, where units are shared
    int block_of_lane = 0;             // of the cache: one of those from first_tile on
  };

  __device__ Ahead ahead_of(unsigned unit, const Found& found) const {
    Ahead ahead;
    if (unit >= units_) return ahead;
    ahead.sequence = found.sequence;
    ahead.unit = ahead.head = static_cast<int>(unit) - found.sequence * a_.kv_heads;
    ahead.block_of_lane = found.block_of_lane;
    ahead.length = found.length;
    ahead.row = found.row;
    ahead.tokens = found.tokens;
    ahead.tiles = found.tokens > 0 ? div_up(ahead.length, kTileKeys) : 0;
    ahead.end_tile = ahead.tiles;
    return ahead;
  }
  __device__ Ahead look_up(unsigned unit) const { return ahead_of(unit, find(unit)); }

  /// Where units are shared: the first two parts of the block's share, each the pieces of a unit.
  __device__ void start_share(const WorkItem& item) {
    this->shares_ = Shares(item.tiles, item.sharers);
    sharer_ = item.sharer;
    Walk walk = item.walk();
    now_ = next_part(walk, item.end);
    next_ = next_part(walk, item.end);
    if (threadIdx.x == 0) {
      x_.ahead = walk;
      x_.end = item.end;
    }
  }

  /// The part after the next. All threads of the block call it; they meet before and afterwards.
  __device__ Ahead next_part() {
    Walk walk = x_.ahead;
    const Ahead part = next_part(walk, x_.end);
    __syncthreads();
    if (threadIdx.x == 0) x_.ahead = walk;
    return part;
  }

  /// The pieces of the walk's unit that begin before the tile `end` of all; the walk goes on.
  __device__ Ahead next_part(Walk& walk, unsigned end) const {
    Ahead part;
    if (walk.start() >= end) return part;
    const SequencePlan& plan = walk.plan;
    part.sequence = walk.sequence;
    part.unit = walk.unit;
    part.head = kOneToken ? walk.unit : walk.unit / plan.row_tiles;
    part.tokens = plan.tokens;
    part.tiles = part.end_tile = plan.tiles;
    part.length = plan.length;
    part.row = plan.row_start;
    part.first_piece = walk.piece;
    part.first_tile = walk.piece_begin();
    part.unit_start = walk.unit_start;
    const unsigned tiles = end - walk.unit_start;
    if (tiles < static_cast<unsigned>(plan.tiles)) {
      const int pieces = div_up(static_cast<int>(tiles), plan.piece_tiles);
      part.end_tile = smaller(pieces * plan.piece_tiles, plan.tiles);
    }
    const int block = first_block_of(part) + lane();
    if (block < a_.blocks_per_sequence) part.block_of_lane = blocks_of(part.sequence)[block];
    next_unit(w_.division, w_.lengths, end, &walk);
    return part;
  }

  __device__ Walk walk_of(const Ahead& unit) const {
    Walk walk;
    walk.sequence = unit.sequence;
    walk.unit = kOneToken ? unit.head : unit.unit;
    walk.piece = unit.first_piece;
    walk.unit_start = unit.unit_start;
    SequencePlan& plan = walk.plan;
    plan = {};
    plan.tokens = plan.row_tiles = 1;
    if constexpr (!kOneToken) {
      const int rows = unit.tokens * a_.group;
      plan.tokens = unit.tokens;
      plan.row_tiles = rows <= S::kRows ? 1 : div_up(rows, S::kRows);
    }
    plan.length = unit.length;
    plan.first_position = unit.length - plan.tokens;
    plan.row_start = unit.row;
    plan.tiles = unit.tiles;
    plan.piece_tiles = tiles_of_piece(w_.division, unit.tiles);
    plan.pieces = plan.tiles <= plan.piece_tiles ? 1 : div_up(plan.tiles, plan.piece_tiles);
    return walk;
  }

  __device__ int first_block_of(const Ahead& unit) const {
    return unit.first_tile * kTileKeys >> w_.block_shift;
  }
  /// This warp's first tile.
  __device__ static int first_tile_of(const Ahead& unit) {
    return unit.first_tile + ((warp() - unit.first_tile) & (kQuarters - 1));
  }

  const __device__ int32_t* blocks_of(int sequence) const {
    return a_.blocks + int64_t{a_.first_sequence + sequence} * a_.blocks_per_sequence;
  }
  __device__ int block_at(const Ahead& unit, int position) const {
    const int index = position >> w_.block_shift, of_lane = index - first_block_of(unit);
    return of_lane < kWarp ? __shfl_sync(kAll, unit.block_of_lane, of_lane)
                           : blocks_of(unit.sequence)[index];
  }

  __device__ uint32_t barrier(int stage) const {
    return shared_address_of(&x_.barriers[warp()][stage]);
  }
  __device__ void start_barriers() const {
    if (lane() < S::kStages) hopper::init_barrier(barrier(lane()), 1);
    hopper::publish_barriers();
    __syncwarp();
  }

  /// Requests tiles of this unit, then of the next one, until the ring is full. One copy of the
  /// code for both.
  __device__ void fill() {
#pragma unroll 1
    while (filled_ < S::kStages) {
      const bool is_next = tile_ahead_ >= now_.end_tile;
      if (is_next && next_tile_ahead_ >= next_.end_tile) return;
      const int position = (is_next ? next_tile_ahead_ : tile_ahead_) * kTileKeys;
      (is_next ? next_tile_ahead_ : tile_ahead_) += kQuarters;
      const int index = position >> w_.block_shift;
      const int of_lane = index - (is_next ? first_block_of(next_) : first_block_of(now_));
      const int block =
          of_lane < kWarp
              ? __shfl_sync(kAll, is_next ? next_.block_of_lane : now_.block_of_lane, of_lane)
              : blocks_of(is_next ? next_.sequence : now_.sequence)[index];
      request(is_next ? next_.head : now_.head, block, position);
    }
  }
  __device__ void request(int head, int block, int position) {
    if (lane() == 0) {
      const int slot = position - (position >> w_.block_shift << w_.block_shift);
      const int key = head * a_.tokens_per_block + slot;
      constexpr int kScaleBytes = kHasScale<Stored> ? 2 * kTileKeys * 4 : 0;
      const uint32_t to = shared_address_of(this->ring_ + fill_stage_ * S::kStage);
      const uint32_t full = barrier(fill_stage_);
      hopper::arrive_expecting(full, S::kStageBytes + kScaleBytes);
      copy_streamed_box(to, maps_.vectors, full, 0, key, 0, 0, block);
      if constexpr (kHasScale<Stored>) {
        const uint32_t scales = shared_address_of(this->scales_of(fill_stage_));
        hopper::copy_box(scales, maps_.scales, full, 2 * key, 0, block);
      }
    }
    fill_stage_ = this->after(fill_stage_);
    ++filled_;
  }

  const CacheMaps& maps_;
  Exchange& x_;
  const unsigned units_;
  unsigned sharer_ = 0;                       // the block's number, where units are shared
  Ahead now_, next_;                          // units
  int tile_ahead_ = 0, next_tile_ahead_ = 0;  // to be requested next, of this unit and the next one
  int fill_stage_ = 0, filled_ = 0;           // of the ring
};

/// Maps of boxes of 16 keys with their values, in units of 16 bits. How many blocks there are is
/// not known: as many as fit into the address space of a GPU.
template <typename S>
CacheMaps make_maps(const AttentionArgs& args) {
  constexpr int64_t kAddressSpace = int64_t{1} << 40, kMaxBlocks = int64_t{1} << 30;
  constexpr int64_t kBox = S::kBoxRow / 2, kParts = S::kStageBytes / 2 / S::kBoxBytes;
  const int64_t blocks =
      std::clamp<int64_t>(kAddressSpace / args.block_bytes, int64_t{1}, kMaxBlocks);
  const int64_t keys = int64_t{args.tokens_per_block} * args.kv_heads;
  CacheMaps maps{};
  maps.vectors = device::make_tensor_map(
      args.k, {kBox, keys, kParts, 2, blocks},
      {kBox * kParts, kBox, (args.v - args.k) / 2, args.block_bytes / 2},
      {kBox, kTileKeys, kParts, 2, 1},
      S::kBoxRow == 128 ? device::Swizzle::k128Bytes : device::Swizzle::k64Bytes);
  if (args.k_scale != nullptr) {
    maps.scales = device::make_tensor_map(args.k_scale, {2 * keys, 2, blocks},
                                          {(args.v_scale - args.k_scale) / 2, args.block_bytes / 2},
                                          {2 * kTileKeys, 2, 1}, device::Swizzle::kNone);
  }
  return maps;
}

}  // namespace millrace::ops::generation
