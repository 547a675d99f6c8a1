// Streams of units with up to 16 query rows: several new tokens of a sequence, or many query heads
// that share one. Blocks and rings do as in Stream. What differs: threads share the work of
// rotating queries, several keys are new, and a unit's result waits in shared memory, since
// registers hold twice the sums. The bits are those of Kernel. For .cu files.
#pragma once

#include "ops/attention_generation/generation_ring_cuda.cuh"

namespace millrace::ops::generation {

/// Shared memory: the rings, the sums of the warps, queries [rows, kQueryStride], the result of a
/// unit's pieces so far [rows, kSize] with twice (largest, total) [rows], what warps tell each
/// other.
template <typename T, int kSize>
class WideStream : private Ring<Token<T, kSize, BoxSizes<kSize, 2, 2>>, T> {
 public:
  using S = BoxSizes<kSize, 2, 2>;
  using Base = Ring<Token<T, kSize, S>, T>;
  using Exchange = typename Base::Exchange;
  static constexpr int kQueriesAt = S::kRingBytes + S::kWarps * S::kSumBytes;
  static constexpr int kResultAt = kQueriesAt + S::kRows * S::kQueryStride * 2;
  static constexpr int kStatsAt = kResultAt + S::kRows * kSize * 4;
  static constexpr int kExchangeAt = kStatsAt + 2 * S::kRows * static_cast<int>(sizeof(float2));
  static constexpr int kSharedBytes = kExchangeAt + static_cast<int>(sizeof(Exchange));
  static_assert(kResultAt % 16 == 0 && kExchangeAt % 16 == 0);

  __device__ WideStream(const AttentionArgs& a, const Work& work, const CacheMaps& maps,
                        std::byte* shared)
      : Base(a, work, maps, shared, S::kSumBytes,
             *reinterpret_cast<Exchange*>(shared + kExchangeAt)),
        queries_(reinterpret_cast<uint16_t*>(shared + kQueriesAt)),
        result_(reinterpret_cast<float*>(shared + kResultAt)),
        result_stats_(reinterpret_cast<float2*>(shared + kStatsAt)) {}

  /// Old keys are on their way before the wait, as in Kernel::attend().
  __device__ void run() {
    this->prefetch_tables();
    // Before it is known whether units are shared: the loads are on their way together.
    const auto now = this->find(blockIdx.x), next = this->find(blockIdx.x + gridDim.x);
    const WorkItem item = load_shared_item(w_);
    const bool shares = item.unit_blocks == 0;
    if (shares && item.has_work == 0) {
      if (item.sharer == 0) device::wait_for_predecessor();
      return;
    }
    this->look_up_first(now, next);
    if (shares) this->start_share(item);
    this->start_barriers();
    tile_ahead_ = this->first_tile_of(now_);
    next_tile_ahead_ = this->first_tile_of(next_);
    unsigned unit = blockIdx.x, next_unit = blockIdx.x + gridDim.x;
    bool waited = false, goes_on = true;
    do {
      fill();
      if (!waited) {
        device::wait_for_predecessor();
        waited = true;
        if (!shares && unit >= units_) return;
        put_query(read_unit(now_));
        __syncthreads();
      }
      const bool takes = !shares && threadIdx.x == 0;
      const unsigned taken = takes ? atomicAdd(&units_taken[w_.queue], 1u) : 0;
      attend();
      const Read read = read_unit(next_);  // for the next round
      if (takes) {
        x_.after_next = taken + 2 * gridDim.x;
        if (taken + 1 == units_) units_taken[w_.queue] = 0;  // the last one; for the next launch
      }
      __syncthreads();
      const unsigned after_next = shares ? 0 : x_.after_next;
      const Ahead after = shares ? this->next_part() : this->look_up(after_next);
      gather(true);
      if (!is_whole()) join();
      put_query(read);
      __syncthreads();
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
  using Base::a_, Base::w_, Base::lane, Base::warp, Base::kGroups, Base::kRowLanes;
  using Base::now_, Base::next_, Base::tile_ahead_, Base::next_tile_ahead_, Base::filled_;
  using Base::x_, Base::units_, Base::sharer_, Base::fill;
  using typename Base::Ahead;
  static_assert(S::kRows * kRowLanes <= S::kThreads);

  /// A thread's part of a unit's queries, as it comes from memory.
  struct Read {
    HeadHalf query;
    float4 cosines[2], sines[2];
    bool is_there;
  };
  __device__ static int row_of_thread() { return static_cast<int>(threadIdx.x) / kRowLanes; }

  /// Not from the cache of the multiprocessor, see Token::read_token(). Also asks for the new keys.
  __device__ Read read_unit(const Ahead& unit) const {
    Read read{};
    if (unit.tiles == 0) return read;
    prefetch_new_keys(unit);
    const Walk walk = this->walk_of(unit);
    read.is_there = row_of_thread() < this->count_rows(walk);
    if (!read.is_there) return read;
    const auto at = this->step_row(walk, row_of_thread());
    const int d = this->first_element();
    const auto* query = reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(a_.q) +
                                                       at.row * w_.q_stride + at.head * kSize + d);
    read.query = {__ldcg(query), __ldcg(query + kRowLanes)};
    const auto* angles =
        reinterpret_cast<const float4*>(w_.appended.angles + int64_t{at.row} * kSize + d);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      read.cosines[i] = __ldcg(angles + i);
      read.sines[i] = __ldcg(angles + kSize / 2 / 4 + i);
    }
    return read;
  }

  /// The lines that append() reads: of each token's key, value and angles.
  __device__ void prefetch_new_keys(const Ahead& unit) const {
    constexpr int kHeadLines = kSize * 2 / 128, kLines = 4 * kHeadLines;
    const int token = static_cast<int>(threadIdx.x) / kLines;
    const int line = static_cast<int>(threadIdx.x) % kLines;
    const bool has_new = unit.end_tile * kTileKeys > unit.length - unit.tokens;
    if (!has_new || token >= unit.tokens) return;
    const Appended& from = w_.appended;
    const int64_t row = unit.row + token;
    if (line >= 2 * kHeadLines) {
      prefetch(from.angles + row * kSize + (line - 2 * kHeadLines) * 32);
      return;
    }
    const bool is_v = line >= kHeadLines;
    prefetch(static_cast<const uint16_t*>(is_v ? from.v : from.k) +
             row * (is_v ? from.v_stride : from.k_stride) + unit.head * kSize +
             line % kHeadLines * 64);
  }

  /// Rotated, to where all warps find it when they have met.
  __device__ void put_query(Read read) const {
    if (!read.is_there) return;
    const float4(&cos)[2] = read.cosines, (&sin)[2] = read.sines;
    const float c[kPart] = {cos[0].x, cos[0].y, cos[0].z, cos[0].w,
                            cos[1].x, cos[1].y, cos[1].z, cos[1].w};
    const float s[kPart] = {sin[0].x, sin[0].y, sin[0].z, sin[0].w,
                            sin[1].x, sin[1].y, sin[1].z, sin[1].w};
    this->rotate(read.query, c, s);
    auto* const to = reinterpret_cast<uint4*>(queries_ + row_of_thread() * S::kQueryStride +
                                              this->first_element());
    to[0] = read.query.x;
    to[kRowLanes] = read.query.y;
  }

  /// Sums of all pieces but the last one; of that, each warp's are left.
  __device__ void attend() {
    walk_ = this->walk_of(now_);
    rows_ = this->count_rows(walk_);
    this->load_queries(walk_, rows_, queries_);
    while (true) {
      add_piece();
      if (walk_.piece_end() >= now_.end_tile) return;
      __syncthreads();
      gather(false);
      __syncthreads();
      ++walk_.piece;
    }
  }

  __device__ void add_piece() {
    this->start_sums();
    const int first = walk_.piece_begin(), end = walk_.piece_end();
#pragma unroll 1
    for (int tile = first + ((warp() - first) & (kQuarters - 1)); tile < end; tile += kQuarters) {
      hopper::wait_barrier(this->barrier(stage_), (phases_ >> stage_) & 1);
      phases_ ^= 1 << stage_;
      if ((tile + 1) * kTileKeys > walk_.plan.first_position) append(tile);
      this->add_stages(stage_, 1, walk_.plan, tile);
      stage_ = this->after(stage_);
      --filled_;
      fill();
    }
    this->share_sums(rows_);
  }

  /// The new keys and values of a tile, to its stage; of the first unit of the KV head also to the
  /// cache. The warp takes some tokens at once. Values behind become zeros: their weights are 0,
  /// but what lies there may be no number.
  __device__ void append(int tile) {
    const Appended& from = w_.appended;
    const int begin = tile * kTileKeys, end = smaller(begin + kTileKeys, now_.length);
    const int past = walk_.plan.first_position, d = this->first_element();
    const int64_t block = this->block_at(now_, begin);
    const bool is_cached = walk_.unit == now_.head * walk_.plan.row_tiles;
    auto* const keys = reinterpret_cast<std::byte*>(this->ring_ + stage_ * S::kStage);
    auto* const values = reinterpret_cast<std::byte*>(this->ring_ + stage_ * S::kStage + S::kPlane);
#pragma unroll 1
    for (int key = larger(begin, past) + lane() / kRowLanes; key < begin + kTileKeys;
         key += kWarp / kRowLanes) {
      const int in_tile = key - begin;
      HeadHalf k{}, v{};
      if (key < end) {
        const int64_t row = now_.row + key - past;
        k = half_at(from.k, row * from.k_stride + now_.head * kSize + d);
        v = half_at(from.v, row * from.v_stride + now_.head * kSize + d);
        float cosines[kPart], sines[kPart];
        load_floats(from.angles + row * kSize + d, cosines);
        load_floats(from.angles + row * kSize + kSize / 2 + d, sines);
        this->rotate(k, cosines, sines);
        put_half(keys + S::at(in_tile, d), keys + S::at(in_tile, d + kSize / 2), k);
      }
      put_half(values + S::at(in_tile, d), values + S::at(in_tile, d + kSize / 2), v);
      if (key < end && is_cached) {
        const int64_t cached = this->cached_at(block, now_.head, key) + d * 2;
        put_half(from.k_plane + cached, from.k_plane + cached + kSize, k);
        put_half(from.v_plane + cached, from.v_plane + cached + kSize, v);
      }
    }
    hopper::order_before_async();
    __syncwarp();
  }
  __device__ static HeadHalf half_at(const void* x, int64_t element) {
    const auto* at = reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(x) + element);
    return {at[0], at[kRowLanes]};
  }
  __device__ static void put_half(std::byte* x, std::byte* y, const HeadHalf& half) {
    *reinterpret_cast<uint4*>(x) = half.x;
    *reinterpret_cast<uint4*>(y) = half.y;
  }

  /// Whether the block has all pieces of the unit.
  __device__ bool is_whole() const { return now_.first_piece == 0 && now_.end_tile == now_.tiles; }

  /// Takes the piece that all warps have shared: to the unit's result where all pieces before are
  /// this block's, else it is stored by itself. The result is written or stored with the last one.
  __device__ void gather(bool is_last) {
    // A row's threads read what one of them wrote a piece ago.
    float2* const stats = result_stats_ + walk_.piece % 2 * S::kRows;
    const float2* const stats_before = result_stats_ + (walk_.piece + 1) % 2 * S::kRows;
#pragma unroll 2
    for (int i = 0; i < S::kVectors; ++i) {
      const int group = static_cast<int>(threadIdx.x) + i * S::kThreads;
      const int row = group / kGroups, d = group % kGroups * 4;
      if (row >= rows_) continue;
      Part part = this->of_block(row, d);
      if (now_.first_piece > 0) {
        this->store_part(sharer_, walk_.piece - now_.first_piece, row, d, part);
        continue;
      }
      auto* const sum = reinterpret_cast<float4*>(result_ + row * kSize + d);
      if (walk_.piece > 0) {
        Part before{stats_before[row].x, stats_before[row].y, *sum};
        add_part(before, part);
        part = before;
      }
      if (!is_last) {
        *sum = part.sum;
        if (d == 0) stats[row] = {part.largest, part.total};
      } else if (is_whole()) {
        this->write(walk_, row, d, part);
      } else {
        this->store_part(sharer_, w_.partial_slots - 1, row, d, part);
      }
    }
  }

  /// Some pieces of the unit are stored; the block that stores the last ones joins them all.
  __device__ void join() {
    __syncthreads();
    const unsigned home = this->shares_.owner(walk_.unit_start);
    if (threadIdx.x == 0)
      x_.is_last = this->count_stored(walk_, home, walk_.piece + 1 - now_.first_piece);
    // Meanwhile, in case it is the last.
    if (warp() == S::kWarps - 1) this->find_partials(walk_, home, x_.partial, &x_.num_partials);
    __syncthreads();
    if (x_.is_last) this->write_joined(walk_, rows_, x_.partial, x_.num_partials);
  }

  uint16_t* const queries_;
  float* const result_;
  float2* const result_stats_;
  int stage_ = 0, phases_ = 0;  // to be read next; a bit for each stage
  int rows_ = 0;                // of this unit
  Walk walk_;
};

}  // namespace millrace::ops::generation
