// Sequences with one new token each: blocks that stay take unit after unit, or their shares, and
// each warp's ring of tiles, which the copy engine fills, runs on into the block's next unit. So
// memory is asked for more while a unit ends and the next one begins. The bits are those of Kernel.
// For .cu files.
#pragma once

#include "ops/attention_generation/generation_kernel_cuda.cuh"
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

/// Shared memory: the rings, the places of the warps (see Token), what they tell each other.
/// kShares: knows blocks that share units, too; it begins 0.4 us later then.
template <typename T, int kSize, typename Stored, bool kShares>
class Stream : private Token<T, kSize, BoxSizes<kSize, static_cast<int>(sizeof(Stored))>, Stored> {
 public:
  using S = BoxSizes<kSize, static_cast<int>(sizeof(Stored))>;
  using Base = Token<T, kSize, S, Stored>;
  using Exchange = StreamExchange<S>;
  static constexpr int kExchangeAt = S::kRingBytes + S::kWarps * Base::kPlaceBytes;
  static constexpr int kSharedBytes = kExchangeAt + static_cast<int>(sizeof(Exchange));
  static constexpr unsigned kFewUnits = 4;  // of a block

  /// shared: aligned to 1024 bytes, as the boxes' chunks change places by address.
  __device__ Stream(const AttentionArgs& a, const Work& work, const CacheMaps& maps,
                    std::byte* shared)
      : Base(a, work, Shares(), shared, shared + S::kRingBytes, Base::kPlaceBytes,
             reinterpret_cast<Exchange*>(shared + kExchangeAt)->stats),
        maps_(maps),
        x_(*reinterpret_cast<Exchange*>(shared + kExchangeAt)),
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

  /// Old keys are on their way before the wait, as in Kernel::attend(). REQUIRES: where units are
  /// shared, the item has work.
  ///
  /// Where a block has few units, it rehearses the first one: it adds up what lies in the ring,
  /// whatever it is, and throws the sums away. So the instructions, which weights have driven out
  /// of the caches since the last layer, come while the kernel before still runs, or with the first
  /// tiles. Where it has more units, what this saves counts less than what it takes behind a kernel
  /// that lets nothing start before its end.
  __device__ void run(const WorkItem& item) {
    start_barriers();
    const bool shares = kShares && item.unit_blocks == 0;
    if (shares) start_share(item);
    tile_ahead_ = first_tile_of(now_);
    next_tile_ahead_ = first_tile_of(next_);
    unsigned unit = blockIdx.x, next_unit = blockIdx.x + gridDim.x;
    typename Base::Read read{};
    bool waited = false, goes_on = true;
    rehearses_ = !shares && units_ <= kFewUnits * gridDim.x;
    do {
      fill();
      if (!rehearses_ && !waited) {
        device::wait_for_predecessor();
        waited = true;
        if (!shares && unit >= units_) return;
        read = read_unit(now_);
      }
      const bool takes = !shares && !rehearses_ && threadIdx.x == 0;
      const unsigned taken = takes ? atomicAdd(&units_taken[w_.queue], 1u) : 0;
      attend(read);
      if (!rehearses_ && next_.tiles > 0) read = read_unit(next_);  // for the next round
      if (takes) {
        x_.after_next = taken + 2 * gridDim.x;
        if (taken + 1 == units_) units_taken[w_.queue] = 0;  // the last one; for the next launch
      }
      __syncthreads();
      if (rehearses_) {
        gather();
        __syncthreads();
        rehearses_ = false;
        continue;
      }
      const unsigned after_next = shares ? 0 : x_.after_next;
      const Ahead after = shares ? next_part() : look_up(after_next);
      finish();
      unit = next_unit;
      next_unit = after_next;
      now_ = next_;
      next_ = after;
      tile_ahead_ = next_tile_ahead_;
      next_tile_ahead_ = first_tile_of(next_);
      goes_on = shares ? now_.tiles > 0 : unit < units_;
    } while (goes_on);
  }

 private:
  using Base::a_, Base::w_, Base::lane, Base::warp, Base::kGroups, Base::kWidens, Base::kAtOnce;

  /// A unit, or some of its pieces, as far as all layers have it in common. No tiles: there is
  /// none, or no token.
  struct Ahead {
    int sequence = 0, head = 0, tiles = 0, length = 0, row = 0;
    int first_piece = 0;
    int first_tile = 0, end_tile = 0;  // of these pieces
    unsigned unit_start = 0;           // number of the unit's first tile, where units are shared
    int block_of_lane = 0;             // of the cache: one of those from first_tile on
  };

  __device__ Ahead ahead_of(unsigned unit, const Found& found) const {
    Ahead ahead;
    if (unit >= units_) return ahead;
    ahead.sequence = found.sequence;
    ahead.head = static_cast<int>(unit) - found.sequence * a_.kv_heads;
    ahead.block_of_lane = found.block_of_lane;
    ahead.length = found.length;
    ahead.row = found.row;
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
    part.head = walk.unit;
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

  __device__ bool has_last_tile(const Ahead& unit) const {
    return unit.end_tile == unit.tiles && (unit.tiles - 1) % kQuarters == warp();
  }
  /// Whether this warp takes in a key while it comes as it was projected, else it does it later.
  __device__ bool takes_new_key(const Ahead& unit) const { return !kWidens && has_last_tile(unit); }
  __device__ auto read_unit(const Ahead& unit) const {
    return this->read_token(unit.row, unit.head, takes_new_key(unit));
  }

  /// Sums of all pieces but the last one; of that, each warp's are left.
  __device__ void attend(typename Base::Read& read) {
    walk_ = walk_of(now_);
    this->take_token(read, walk_, takes_new_key(now_));
    if (kWidens && !rehearses_ && has_last_tile(now_)) this->prefetch_new_key(walk_, lane());
    while (true) {
      add_piece();
      if (rehearses_ || walk_.piece_end() >= now_.end_tile) return;
      __syncthreads();
      gather();
      __syncthreads();
      ++walk_.piece;
    }
  }

  __device__ Walk walk_of(const Ahead& unit) const {
    Walk walk;
    walk.sequence = unit.sequence;
    walk.unit = unit.head;
    walk.piece = unit.first_piece;
    walk.unit_start = unit.unit_start;
    SequencePlan& plan = walk.plan;
    plan = {};
    plan.tokens = plan.row_tiles = 1;
    plan.length = unit.length;
    plan.first_position = unit.length - 1;
    plan.row_start = unit.row;
    plan.tiles = unit.tiles;
    plan.piece_tiles = tiles_of_piece(w_.division, unit.tiles);
    plan.pieces = plan.tiles <= plan.piece_tiles ? 1 : div_up(plan.tiles, plan.piece_tiles);
    return walk;
  }

  __device__ void add_piece() {
    this->start_sums();
    const int first = walk_.piece_begin(), end = walk_.piece_end(), last = walk_.plan.tiles - 1;
    int tile = first + ((warp() - first) & (kQuarters - 1));
#pragma unroll 1
    while (tile < end) {
      const int stage = stage_, first_tile = tile;
      int count = 0;
#pragma unroll 1
      do {
        if (!rehearses_) {
          hopper::wait_barrier(barrier(stage_), (phases_ >> stage_) & 1);
          phases_ ^= 1 << stage_;
          if (tile == last) append(stage_);
          stage_ = this->after(stage_);
        }
        tile += kQuarters;
      } while (++count < kAtOnce && tile < end);
      this->add_stages(stage, count, walk_.plan, first_tile);
      if (rehearses_) break;
      if (!kWidens && first_tile == last) {
        const int position = now_.length - 1;
        const int block = block_at(now_, position);
        this->cache_new_key(this->cached_at(block, now_.head, position));
      }
      filled_ -= count;
      fill();
    }
    this->end_sums();
    this->share_sums();
  }

  /// The new key and value, to the tile in `stage`; if they are widened, also to the cache. Values
  /// and their scales behind become zeros: their weights are 0, but what lies there may be no
  /// number.
  __device__ void append(int stage) {
    auto* const tile = reinterpret_cast<std::byte*>(this->ring_ + stage * S::kStage);
    constexpr int kElements = 16 / static_cast<int>(sizeof(Stored)), kChunks = kSize / kElements;
    const int key = (now_.length - 1) % kTileKeys;
    const auto at = [&](bool is_v, int row, int chunk) {
      return reinterpret_cast<uint4*>(tile + (is_v ? S::kStageBytes / 2 : 0) +
                                      S::at(row, chunk * kElements));
    };
#pragma unroll 1
    for (int row = key + 1 + lane() / kChunks; row < kTileKeys; row += kWarp / kChunks)
      *at(true, row, lane() % kChunks) = uint4{};
    if constexpr (kWidens) {
      if (kHasScale<Stored> && lane() > key && lane() < kTileKeys)
        this->scales_of(stage)[kTileKeys + lane()] = 0;
      this->append_keys(stage, walk_, walk_.plan.tiles - 1);
    } else {
      this->put_new_key([&](bool is_v, int chunk, const uint4& x) { *at(is_v, key, chunk) = x; });
    }
    hopper::order_before_async();
    __syncwarp();
  }

  /// Takes the piece that all warps have shared: to the unit's result where all pieces before are
  /// this block's, else it is stored by itself.
  __device__ void gather() {
    for_each_group([&](int i, int row, int d) {
      const Part piece = this->of_block(row, d);
      if (now_.first_piece > 0) {
        this->store_part(sharer_, walk_.piece - now_.first_piece, row, d, piece);
      } else if (walk_.piece == 0) {
        result_[i] = piece;
      } else {
        add_part(result_[i], piece);
      }
    });
  }

  /// Writes or stores the unit's result, when all warps have shared the last piece.
  __device__ void finish() {
    if (now_.tiles > 0) {
      gather();
      if (now_.first_piece == 0 && now_.end_tile == now_.tiles) {
        for_each_group([&](int i, int row, int d) { this->write(walk_, row, d, result_[i]); });
      } else {
        store_result();
      }
    }
    __syncthreads();
  }

  /// Pieces in the middle of a unit lie in the slots before. The block that stores the last ones
  /// joins them all.
  __device__ void store_result() {
    if (now_.first_piece == 0) {
      for_each_group([&](int i, int row, int d) {
        this->store_part(sharer_, w_.partial_slots - 1, row, d, result_[i]);
      });
    }
    __syncthreads();
    const unsigned home = this->shares_.owner(walk_.unit_start);
    if (threadIdx.x == 0)
      x_.is_last = this->count_stored(walk_, home, walk_.piece + 1 - now_.first_piece);
    // Meanwhile, in case it is the last.
    if (warp() == S::kWarps - 1) this->find_partials(walk_, home, x_.partial, &x_.num_partials);
    __syncthreads();
    if (!x_.is_last) return;
    constexpr int kAtOnce = 8;
    for_each_group([&](int /*i*/, int row, int d) {
      this->write(walk_, row, d,
                  this->template join_partials<kAtOnce>(x_.partial, x_.num_partials, row, d));
    });
  }

  /// Calls function(i, row, d) for every i-th of this thread's groups of four elements.
  template <typename F>
  __device__ void for_each_group(const F& function) const {
#pragma unroll
    for (int i = 0; i < S::kVectors; ++i) {
      const int group = static_cast<int>(threadIdx.x) + i * S::kThreads;
      if (group < a_.group * kGroups) function(i, group / kGroups, group % kGroups * 4);
    }
  }

  const CacheMaps& maps_;
  Exchange& x_;
  const unsigned units_;
  bool rehearses_ = false;                    // this round, see run()
  unsigned sharer_ = 0;                       // the block's number, where units are shared
  Ahead now_, next_;                          // units
  int tile_ahead_ = 0, next_tile_ahead_ = 0;  // to be requested next, of this unit and the next one
  int fill_stage_ = 0, filled_ = 0;           // of the ring
  int stage_ = 0, phases_ = 0;                // to be read next; a bit for each stage
  Walk walk_;                                 // this unit
  Part result_[S::kVectors];                  // of the unit's pieces so far
};

}  // namespace millrace::ops::generation
