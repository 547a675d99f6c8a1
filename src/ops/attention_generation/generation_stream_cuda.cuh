// Sequences with one new token each: blocks that stay take unit after unit, or their shares, and
// each warp's ring of tiles, which the copy engine fills, runs on into the block's next unit. So
// memory is asked for more while a unit ends and the next one begins. The bits are those of Kernel.
// For .cu files.
#pragma once

#include "ops/attention_generation/generation_kernel_cuda.cuh"
#include "ops/attention_generation/generation_ring_cuda.cuh"

namespace millrace::ops::generation {

/// Shared memory: the rings, the places of the warps (see Token), what they tell each other.
/// kShares: knows blocks that share units, too; it begins 0.4 us later then.
template <typename T, int kSize, typename Stored, bool kShares>
class Stream
    : private Ring<Token<T, kSize, BoxSizes<kSize, static_cast<int>(sizeof(Stored))>, Stored>,
                   Stored> {
 public:
  using S = BoxSizes<kSize, static_cast<int>(sizeof(Stored))>;
  using Base = Ring<Token<T, kSize, S, Stored>, Stored>;
  using Exchange = typename Base::Exchange;
  static constexpr int kExchangeAt = S::kRingBytes + S::kWarps * Base::kPlaceBytes;
  static constexpr int kSharedBytes = kExchangeAt + static_cast<int>(sizeof(Exchange));
  static constexpr unsigned kFewUnits = 4;  // of a block

  __device__ Stream(const AttentionArgs& a, const Work& work, const CacheMaps& maps,
                    std::byte* shared)
      : Base(a, work, maps, shared, Base::kPlaceBytes,
             *reinterpret_cast<Exchange*>(shared + kExchangeAt)) {}

  using Base::prefetch_tables, Base::find, Base::look_up_first;

  /// Old keys are on their way before the wait, as in Kernel::attend(). REQUIRES: where units are
  /// shared, the item has work.
  ///
  /// Where a block has few units, it rehearses the first one: it adds up what lies in the ring,
  /// whatever it is, and throws the sums away. So the instructions, which weights have driven out
  /// of the caches since the last layer, come while the kernel before still runs, or with the first
  /// tiles. Where it has more units, what this saves counts less than what it takes behind a kernel
  /// that lets nothing start before its end.
  __device__ void run(const WorkItem& item) {
    this->start_barriers();
    const bool shares = kShares && item.unit_blocks == 0;
    if (shares) this->start_share(item);
    tile_ahead_ = this->first_tile_of(now_);
    next_tile_ahead_ = this->first_tile_of(next_);
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
      const Ahead after = shares ? this->next_part() : this->look_up(after_next);
      finish();
      unit = next_unit;
      next_unit = after_next;
      now_ = next_;
      next_ = after;
      tile_ahead_ = next_tile_ahead_;
      next_tile_ahead_ = this->first_tile_of(next_);
      goes_on = shares ? now_.tiles > 0 : unit < units_;
    } while (goes_on);
  }

 private:
  using Base::a_, Base::w_, Base::lane, Base::warp, Base::kGroups, Base::kWidens, Base::kAtOnce;
  using Base::now_, Base::next_, Base::tile_ahead_, Base::next_tile_ahead_, Base::filled_;
  using Base::x_, Base::units_, Base::sharer_, Base::barrier, Base::block_at, Base::fill;
  using typename Base::Ahead;

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
    walk_ = this->walk_of(now_);
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
    this->share_sums(a_.group);
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

  bool rehearses_ = false;      // this round, see run()
  int stage_ = 0, phases_ = 0;  // to be read next; a bit for each stage
  Walk walk_;                   // this unit
  Part result_[S::kVectors];    // of the unit's pieces so far
};

}  // namespace millrace::ops::generation
