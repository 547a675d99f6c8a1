// Many sequences with one new token each: blocks that stay take unit after unit, and each warp's
// ring of tiles, which the copy engine fills, runs on into the block's next unit. So memory is
// asked for more while a unit ends and the next one begins. The bits are those of Kernel. For .cu
// files.
#pragma once

#include "ops/attention_generation/generation_kernel_cuda.cuh"
#include "ops/attention_generation/generation_token_cuda.cuh"
#include "ops/common/hopper.cuh"

namespace millrace::ops::generation {

/// Units that the blocks of a launch have taken beyond their first two. Zeros between launches;
/// launches that overlap use different ones.
static __device__ unsigned units_taken[kNumberedQueues];

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
};

/// Shared memory: the rings, the places of the warps (see Token), what they tell each other.
template <typename T, int kSize, typename Stored>
class Stream : private Token<T, kSize, BoxSizes<kSize, static_cast<int>(sizeof(Stored))>, Stored> {
 public:
  using S = BoxSizes<kSize, static_cast<int>(sizeof(Stored))>;
  using Base = Token<T, kSize, S, Stored>;
  using Exchange = StreamExchange<S>;
  static constexpr int kExchangeAt = S::kRingBytes + S::kWarps * Base::kPlaceBytes;
  static constexpr int kSharedBytes = kExchangeAt + static_cast<int>(sizeof(Exchange));

  /// shared: aligned to 1024 bytes, as the boxes' chunks change places by address.
  __device__ Stream(const AttentionArgs& a, const Work& work, const CacheMaps& maps,
                    std::byte* shared)
      : Base(a, work, Shares(), shared, shared + S::kRingBytes, Base::kPlaceBytes,
             reinterpret_cast<Exchange*>(shared + kExchangeAt)->stats),
        maps_(maps),
        x_(*reinterpret_cast<Exchange*>(shared + kExchangeAt)),
        units_(static_cast<unsigned>(work.lengths.sequences * a.kv_heads)) {}

  /// Before it is known whether the launch has streams: the loads are on their way together.
  __device__ void look_up_first() {
    now_ = look_up(blockIdx.x);
    next_ = look_up(blockIdx.x + gridDim.x);
  }

  /// Old keys are on their way before the wait, as in Kernel::attend().
  __device__ void run() {
    start_barriers();
    tile_ahead_ = next_tile_ahead_ = warp();
    unsigned unit = blockIdx.x, next_unit = blockIdx.x + gridDim.x;
    typename Base::Read read{};
    bool waited = false;
    do {
      fill();
      if (!waited) {
        device::wait_for_predecessor();
        waited = true;
        if (unit >= units_) return;
        read = read_unit(now_);
      }
      const unsigned taken = threadIdx.x == 0 ? atomicAdd(&units_taken[w_.queue], 1u) : 0;
      attend(read);
      if (next_.tiles > 0) read = read_unit(next_);  // for the next round
      if (threadIdx.x == 0) {
        x_.after_next = taken + 2 * gridDim.x;
        if (taken + 1 == units_) units_taken[w_.queue] = 0;  // the last one; for the next launch
      }
      finish();
      unit = next_unit;
      next_unit = after_next_;
      now_ = next_;
      next_ = after_;
      tile_ahead_ = next_tile_ahead_;
      next_tile_ahead_ = warp();
    } while (unit < units_);
  }

 private:
  using Base::a_, Base::w_, Base::lane, Base::warp, Base::kGroups, Base::kWidens, Base::kAtOnce;

  /// A unit, as far as all layers have it in common. No tiles: there is none, or no token.
  struct Ahead {
    int sequence = 0, head = 0, tiles = 0, length = 0, row = 0;
    int block_of_lane = 0;  // of the cache: one of the sequence's first blocks
  };

  __device__ Ahead look_up(unsigned unit) const {
    Ahead ahead;
    if (unit >= units_) return ahead;
    const auto heads = static_cast<unsigned>(a_.kv_heads);
    ahead.sequence = static_cast<int>(unit / heads);
    ahead.head = static_cast<int>(unit - static_cast<unsigned>(ahead.sequence) * heads);
    if (lane() < a_.blocks_per_sequence) ahead.block_of_lane = blocks_of(ahead.sequence)[lane()];
    const int s = w_.lengths.first + ahead.sequence;
    ahead.length = w_.lengths.sequence_length[s];
    ahead.row = w_.lengths.query_start[s];
    ahead.tiles = w_.lengths.query_length[s] > 0 ? div_up(ahead.length, kTileKeys) : 0;
    return ahead;
  }
  const __device__ int32_t* blocks_of(int sequence) const {
    return a_.blocks + int64_t{a_.first_sequence + sequence} * a_.blocks_per_sequence;
  }
  __device__ int block_at(int sequence, int block_of_lane, int position) const {
    const int index = position >> w_.block_shift;
    return index < kWarp ? __shfl_sync(kAll, block_of_lane, index) : blocks_of(sequence)[index];
  }

  __device__ uint32_t barrier(int stage) const {
    return shared_address_of(&x_.barriers[warp()][stage]);
  }
  __device__ void start_barriers() const {
    if (lane() < S::kStages) hopper::init_barrier(barrier(lane()), 1);
    hopper::publish_barriers();
    if (threadIdx.x == 0) {
      hopper::prefetch_map(maps_.vectors);
      if constexpr (kHasScale<Stored>) hopper::prefetch_map(maps_.scales);
    }
    __syncwarp();
  }

  /// Requests tiles of this unit, then of the next one, until the ring is full. One copy of the
  /// code for both.
  __device__ void fill() {
#pragma unroll 1
    while (filled_ < S::kStages) {
      const bool is_next = tile_ahead_ >= now_.tiles;
      if (is_next && next_tile_ahead_ >= next_.tiles) return;
      const int tile = is_next ? next_tile_ahead_ : tile_ahead_;
      (is_next ? next_tile_ahead_ : tile_ahead_) += kQuarters;
      const int position = tile * kTileKeys;
      const int block = block_at(is_next ? next_.sequence : now_.sequence,
                                 is_next ? next_.block_of_lane : now_.block_of_lane, position);
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
      hopper::copy_box(to, maps_.vectors, full, 0, key, 0, 0, block);
      if constexpr (kHasScale<Stored>) {
        const uint32_t scales = shared_address_of(this->scales_of(fill_stage_));
        hopper::copy_box(scales, maps_.scales, full, 2 * key, 0, block);
      }
    }
    fill_stage_ = this->after(fill_stage_);
    ++filled_;
  }

  __device__ bool has_last_tile(const Ahead& unit) const {
    return (unit.tiles - 1) % kQuarters == warp();
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
    if (kWidens && has_last_tile(now_)) this->prefetch_new_key(walk_, lane());
    for (; walk_.piece < walk_.plan.pieces; ++walk_.piece) {
      if (walk_.piece > 0) gather();
      add_piece();
    }
  }

  __device__ Walk walk_of(const Ahead& unit) const {
    Walk walk;
    walk.sequence = unit.sequence;
    walk.unit = unit.head;
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
        hopper::wait_barrier(barrier(stage_), (phases_ >> stage_) & 1);
        phases_ ^= 1 << stage_;
        if (tile == last) append(stage_);
        stage_ = this->after(stage_);
        tile += kQuarters;
      } while (++count < kAtOnce && tile < end);
      this->add_stages(stage, count, walk_.plan, first_tile);
      if (!kWidens && first_tile == last) {
        const int position = now_.length - 1;
        const int block = block_at(now_.sequence, now_.block_of_lane, position);
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

  /// Adds the piece before, which all warps have shared, to the unit's result.
  __device__ void gather() {
    __syncthreads();
    for_each_group([&](int i, int row, int d) {
      const Part piece = this->of_block(row, d);
      if (walk_.piece == 1) {
        result_[i] = piece;
      } else {
        add_part(result_[i], piece);
      }
    });
    __syncthreads();
  }

  /// Writes the unit's result, and looks up the unit after the next.
  __device__ void finish() {
    __syncthreads();
    after_next_ = x_.after_next;
    after_ = look_up(after_next_);
    if (now_.tiles > 0) {
      for_each_group([&](int i, int row, int d) {
        Part part = this->of_block(row, d);
        if (walk_.plan.pieces > 1) {
          add_part(result_[i], part);
          part = result_[i];
        }
        this->write(walk_, row, d, part);
      });
    }
    __syncthreads();
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
  Ahead now_, next_, after_;                  // units
  unsigned after_next_ = 0;                   // the number of after_
  int tile_ahead_ = 0, next_tile_ahead_ = 0;  // to be requested next, of this unit and the next one
  int fill_stage_ = 0, filled_ = 0;           // of the ring
  int stage_ = 0, phases_ = 0;                // to be read next; a bit for each stage
  Walk walk_;                                 // this unit
  Part result_[S::kVectors];                  // of the unit's pieces so far
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

/// Unit after unit as in the other kernels: sequences have several tokens.
template <typename T, int kSize, typename Stored, typename Exchange>
__device__ void run_units(const AttentionArgs& a, const Work& work, Exchange& exchange,
                          std::byte* shared) {
  const auto heads = static_cast<unsigned>(a.kv_heads);
  const unsigned units = static_cast<unsigned>(work.lengths.sequences) * heads;
  for (unsigned unit = blockIdx.x; unit < units; unit += gridDim.x) {
    const WorkItem item = unit_item(work.division, work.lengths, unit / heads, unit % heads);
    if (item.has_work == 0) {
      device::wait_for_predecessor();
      continue;
    }
    const Shares shares(item.tiles, item.sharers);
    Kernel<T, kSize, 1, Stored>(a, work, shares, exchange, shared).run(item);
  }
}

/// Grid: the blocks that run at once. maps are of boxes of kTileKeys keys.
template <typename T, int kSize, typename Stored>
__global__ void __launch_bounds__(Sizes<kSize, 1>::kThreads, Sizes<kSize, 1>::kBlocks)
    attend_streams(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work,
                   const __grid_constant__ CacheMaps maps) {
  using S = Sizes<kSize, 1, static_cast<int>(sizeof(Stored))>;
  constexpr int kBoxAlignment = 1024;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ Exchange<S::kRows, S::kWarps> exchange;
  device::let_successor_start();
  const uint32_t past = shared_address_of(shared) % kBoxAlignment;
  Stream<T, kSize, Stored> stream(a, work, maps, shared + (kBoxAlignment - past) % kBoxAlignment);
  stream.look_up_first();
  const WorkItem item = load_shared_item(work);
  if (item.unit_blocks != 0 && item.one_token != 0) {
    stream.run();
    return;
  }
  if (item.unit_blocks != 0) {
    run_units<T, kSize, Stored>(a, work, exchange, shared);
    return;
  }
  if (item.has_work == 0) {
    if (item.sharer == 0) device::wait_for_predecessor();
    return;
  }
  const Shares shares(item.tiles, item.sharers);
  Kernel<T, kSize, 1, Stored>(a, work, shares, exchange, shared).run(item);
}

}  // namespace millrace::ops::generation
