// What a warp takes in of a unit: tiles of 16 keys, which it copies into a ring of its own, rotated
// queries, and this step's keys. For .cu files.
#pragma once

#include <type_traits>

#include "ops/attention_generation/generation_append_cuda.cuh"
#include "ops/attention_generation/generation_sizes_cuda.cuh"
#include "ops/common/kv_widen_cuda.cuh"
#include "ops/common/streamed_cuda.cuh"

namespace millrace::ops::generation {

/// Copies 16 bytes; if they may be missing and are not there, writes zeros.
template <bool kMayMiss>
__device__ inline void copy_to_shared(uint32_t to, const std::byte* from, bool is_there) {
  if constexpr (kMayMiss) {
    copy_streamed(to, from, is_there);
  } else {
    copy_streamed(to, from);
  }
}

/// T: what products are made of. Queries and results have that type, too, but where Stored has 8
/// bits. SizesOf: of the ring.
template <typename T, int kSize, int kColumnTiles, typename Stored,
          typename SizesOf = Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>>
class Unit {
 public:
  using S = SizesOf;
  static constexpr bool kWidens = sizeof(Stored) == 1;
  static constexpr int kRows = S::kRows;

  __device__ Unit(const AttentionArgs& a, const Work& work, std::byte* shared)
      : a_(a),
        w_(work),
        ring_(reinterpret_cast<Stored*>(shared) + warp() * S::kStages * S::kStage) {}

 protected:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  /// Whether all that is copied of a tile are keys of earlier steps: others are this step's, which
  /// the kernel before has written, or this one appends.
  __device__ bool is_old(const SequencePlan& plan, int tile) const {
    return w_.appended.is_on || plan.tile_begin(tile) + kTileKeys <= plan.first_position;
  }

  /// The block of the cache that a tile lies in. A lane keeps one of the sequence's first blocks:
  /// looking up tile by tile, each would wait for memory.
  __device__ int block_of(const Walk& walk, int tile) {
    const int32_t* blocks =
        a_.blocks + int64_t{a_.first_sequence + walk.sequence} * a_.blocks_per_sequence;
    if (walk.sequence != sequence_of_blocks_) {
      sequence_of_blocks_ = walk.sequence;
      if (lane() < a_.blocks_per_sequence) block_of_lane_ = blocks[lane()];
    }
    const int index = walk.plan.tile_begin(tile) >> w_.block_shift;
    return index < kWarp ? __shfl_sync(kAll, block_of_lane_, index) : blocks[index];
  }

  /// Starts to copy a tile of the walk's unit, which lies in `block`.
  __device__ void fetch_tile(int stage, const Walk& walk, int tile, int64_t block) {
    const SequencePlan& plan = walk.plan;
    const int begin = plan.tile_begin(tile);
    const int low = plan.low(tile) - begin;
    const int high =
        min(plan.high(tile), w_.appended.is_on ? plan.first_position : plan.length) - begin;
    const int kv_head = plan.row_tiles == 1 ? walk.unit : walk.unit / plan.row_tiles;
    const int slot = begin - (begin >> w_.block_shift << w_.block_shift);
    const int64_t vector = int64_t{kv_head} * a_.tokens_per_block + slot;
    const int64_t from =
        block * a_.block_bytes + vector * (kSize * static_cast<int>(sizeof(Stored)));
    if (low <= 0 && high >= kTileKeys) {
      copy_tile<false>(stage, from, low, high);
    } else {
      copy_tile<true>(stage, from, low, high);
    }
    if constexpr (kHasScale<Stored>) {
      copy_scales(stage, block * a_.block_bytes + vector * 4, low, high);
    }
  }

  /// Keys that do not count, those before `low` and from `high` on, become zeros: their weights are
  /// 0, but what lies there may be no number.
  template <bool kMayMiss>
  __device__ void copy_tile(int stage, int64_t from, int low, int high) {
    constexpr unsigned kChunks = kSize / S::kChunk;
    constexpr unsigned kBytes = sizeof(Stored);
    const auto first = static_cast<unsigned>(lane());
    const uint32_t to = shared_address_of(ring_ + stage * S::kStage);
    const uint32_t first_to =
        to + (first / kChunks * S::kStride + first % kChunks * S::kChunk) * kBytes;
    const std::byte* k = a_.k + from + first * 16;
    const std::byte* v = a_.v + from + first * 16;
#pragma unroll
    for (unsigned i = 0; i < kTileKeys * kChunks / kWarp; ++i) {
      const unsigned chunk = first + i * kWarp;
      const unsigned key = chunk / kChunks;
      const bool is_there = static_cast<int>(key) >= low && static_cast<int>(key) < high;
      uint32_t at = to + (key * S::kStride + chunk % kChunks * S::kChunk) * kBytes;
      // Whole rows at a time: a constant away from the first.
      if constexpr (kWarp % kChunks == 0) {
        at = first_to + i * (kWarp / kChunks * S::kStride * kBytes);
      }
      copy_to_shared<kMayMiss>(at, k + i * (kWarp * 16), is_there);
      copy_to_shared<kMayMiss>(at + S::kPlane * kBytes, v + i * (kWarp * 16), is_there);
    }
  }

  /// Scales of the tile's 16 keys, then of its values: one to a lane.
  __device__ void copy_scales(int stage, int64_t from, int low, int high) {
    const int key = lane() % kTileKeys;
    copy_async_4(shared_address_of(scales_of(stage) + lane()),
                 (lane() < kTileKeys ? a_.k_scale : a_.v_scale) + from + key * 4,
                 key >= low && key < high);
  }

  __device__ static int first_row_of(const Walk& walk) {
    return walk.plan.row_tiles == 1 ? 0 : walk.unit % walk.plan.row_tiles * kRows;
  }

  /// Query rows of the walk's unit.
  __device__ int count_rows(const Walk& walk) const {
    const int first_row = first_row_of(walk);
    return min(walk.plan.tokens * a_.group - first_row, kRows);
  }

  /// The row of the step and the head that a row of the walk's unit is.
  struct StepRow {
    int row, head;
  };
  __device__ StepRow step_row(const Walk& walk, int row) const {
    const SequencePlan& plan = walk.plan;
    if (plan.tokens == 1 && plan.row_tiles == 1) {  // divisions take long
      return {plan.row_start, walk.unit * a_.group + row};
    }
    const int kv_head = walk.unit / plan.row_tiles;
    const int at = walk.unit % plan.row_tiles * kRows + row;
    return {plan.row_start + at / a_.group, kv_head * a_.group + at % a_.group};
  }
  /// As a row of the output's heads.
  __device__ int64_t head_row(const Walk& walk, int row) const {
    const StepRow at = step_row(walk, row);
    return int64_t{at.row} * a_.heads + at.head;
  }
  __device__ HeadRow head_of(const void* x, int64_t stride, StepRow at, bool rotates) const {
    const Appended& appended = w_.appended;
    return {static_cast<const uint16_t*>(x) + at.row * stride + at.head * kSize,
            appended.angles + int64_t{at.row} * appended.rotary_dim,
            rotates ? appended.rotary_dim : 0, appended.interleaved, is_bf16()};
  }
  /// Of queries, results, and this step's keys and values.
  __device__ bool is_bf16() const {
    if constexpr (kWidens) return a_.type == ir::DType::kBF16;
    return std::is_same_v<T, __nv_bfloat16>;
  }

  __device__ float total_of(int64_t head_row, float largest, float total) const {
    if (a_.sinks == nullptr) return total;
    return total_with_sink(a_, static_cast<int>(head_row % a_.heads), largest, total);
  }

  /// Whether queries are rotated where the products take them: the other element of each pair is
  /// the same thread's. Else they are rotated in shared memory first.
  __device__ bool rotates_in_place() const {
    return !w_.appended.interleaved &&
           (w_.appended.rotary_dim == 0 || (w_.appended.rotary_dim == kSize && kHasPairs));
  }

  /// Puts the rotated queries of a unit into shared memory. Thread `thread` of `threads`; all of
  /// them have to meet then.
  __device__ void rotate_queries(const Walk& walk, int rows, int thread, int threads,
                                 uint16_t* queries) const {
    constexpr int kParts = kSize / kPart;
#pragma unroll 1
    for (int at = thread; at < rows * kParts; at += threads) {
      const int row = at / kParts, d = at % kParts * kPart;
      float part[kPart];
      head_of(a_.q, w_.q_stride, step_row(walk, row), true).load(d, part);
      *reinterpret_cast<uint4*>(queries + row * S::kQueryStride + d) = pack_part(part, is_bf16());
    }
  }

  /// Queries are the B operands of all products of a unit. From rotate_queries(), or if `queries`
  /// is null as projected, which needs rotates_in_place(). Rows from `rows` on are zeros.
  __device__ void load_queries(const Walk& walk, int rows, const uint16_t* queries) {
    const int first_row = first_row_of(walk);
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int row = n * 8 + lane() / 4;
      const bool is_there = row < rows;
      const HeadRow head = head_of(a_.q, w_.q_stride, step_row(walk, is_there ? row : 0), true);
      const uint16_t* q = queries == nullptr ? head.x : queries + row * S::kQueryStride;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        q_[n][i / 2][i % 2] = is_there ? *reinterpret_cast<const uint32_t*>(q + pair_at(i)) : 0;
      }
      if (queries == nullptr && head.rotary_dim > 0) rotate_in_place(q_[n], head.angles);
      if constexpr (kWidens) {
        const float unit = queries_to_halves(q_[n], is_bf16());
#pragma unroll
        for (int i = 0; i < 2; ++i)
          q_unit_[n][i] = __shfl_sync(kAll, unit, (lane() % 4 * 2 + i) * 4) * (a_.scale * kLog2E);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + lane() % 4 * 2 + i;
        const int token = walk.plan.tokens == 1 ? 0 : (first_row + column) / a_.group;
        position_[n][i] = walk.plan.first_position + token;
      }
    }
  }

  /// Brings the step's key and value of the unit closer; they are read behind the old ones.
  __device__ void prefetch_new_key(const Walk& walk, int thread) const {
    constexpr int kLine = 128, kLines = (kSize * 2 + kLine - 1) / kLine;  // of 16-bit elements
    if (!w_.appended.is_on || thread >= 2 * kLines) return;
    const bool is_v = thread >= kLines;
    const HeadRow head = new_head({walk.plan.row_start, walk.unit / walk.plan.row_tiles}, is_v);
    prefetch(head.x + (is_v ? thread - kLines : thread) * (kLine / 2));
  }

  /// Writes what of a tile in `stage`, whose copies have ended, is this step's, to the stage and,
  /// if the unit is the first of its KV head, to the cache. Nobody else reads or writes these
  /// places in this launch: tiles of other units are copied up to here only.
  __device__ void append_keys(int stage, const Walk& walk, int tile) {
    const SequencePlan& plan = walk.plan;
    const int begin = plan.tile_begin(tile);
    if (!w_.appended.is_on || begin + kTileKeys <= plan.first_position || tile < plan.sink_tiles) {
      return;
    }
    const int kv_head = walk.unit / plan.row_tiles;
    const bool is_first = walk.unit == kv_head * plan.row_tiles;
    const int block =
        a_.blocks[int64_t{a_.first_sequence + walk.sequence} * a_.blocks_per_sequence +
                  (begin >> w_.block_shift)];
    const int to = min(begin + kTileKeys, plan.length);
#pragma unroll 1
    for (int key = max(begin, plan.first_position); key < to; ++key) {
      const int slot = key - (key >> w_.block_shift << w_.block_shift);
      append_key(stage, key - begin, {plan.row_start + key - plan.first_position, kv_head},
                 is_first ? block * a_.block_bytes : -1,
                 int64_t{kv_head} * a_.tokens_per_block + slot);
    }
    __syncwarp();
  }

  /// Of the keys in a stage, and kTileKeys behind them of the values.
  __device__ float* scales_of(int stage) const {
    return reinterpret_cast<float*>(reinterpret_cast<std::byte*>(ring_) +
                                    S::scales_at(warp(), stage));
  }

  const AttentionArgs& a_;
  const Work& w_;
  Stored* const ring_;  // this warp's
  int position_[kColumnTiles][2];
  uint32_t q_[kColumnTiles][kSize / 16][2];
  float q_unit_[kColumnTiles][2];  // of 8 bits: what makes logits of products with q_ and elements

 private:
  /// Pairs of elements that a thread has of a query, and whether the pair half a head away is among
  /// them.
  static constexpr int kPairs = kSize / 8;
  static constexpr bool kHasPairs = !kWidens || kSize % 32 == 0;
  /// The first element of a thread's pair `i`, which is operand [i / 2][i % 2].
  __device__ static int pair_at(int i) {
    return kWidens ? i / 2 * 16 + lane() % 4 * 4 + i % 2 * 2 : i * 8 + lane() % 4 * 2;
  }

  /// As HeadRow::load(), for a whole head.
  __device__ void rotate_in_place(uint32_t (&q)[kSize / 16][2], const float* angles) const {
    if constexpr (kHasPairs) {
#pragma unroll
      for (int i = 0; i < kPairs / 2; ++i) {
        const float2 c = *reinterpret_cast<const float2*>(angles + pair_at(i));
        const float2 s = *reinterpret_cast<const float2*>(angles + kSize / 2 + pair_at(i));
        const int j = i + kPairs / 2;
        const float2 x = unpack_pair(q[i / 2][i % 2], is_bf16());
        const float2 y = unpack_pair(q[j / 2][j % 2], is_bf16());
        q[i / 2][i % 2] =
            pack_as(rotated(x.x, c.x, y.x, -s.x), rotated(x.y, c.y, y.y, -s.y), is_bf16());
        q[j / 2][j % 2] =
            pack_as(rotated(y.x, c.x, x.x, s.x), rotated(y.y, c.y, x.y, s.y), is_bf16());
      }
    }
  }

  __device__ HeadRow new_head(StepRow at, bool is_v) const {
    const Appended& appended = w_.appended;
    return head_of(is_v ? appended.v : appended.k, is_v ? appended.v_stride : appended.k_stride, at,
                   !is_v);
  }

  /// A key and its value, `key` of the stage's tile: at row `from.row` of K and V, head
  /// `from.head`. In the cache they are vector `slot` of the block at `block_offset`, which is
  /// negative if they are not to be written there. Some lanes take the key, others the value.
  __device__ void append_key(int stage, int key, StepRow from, int64_t block_offset, int64_t slot) {
    constexpr int kParts = kSize / kPart;
    const Appended& to = w_.appended;
    Stored* const tile = ring_ + stage * S::kStage;
#pragma unroll 1
    for (int at = lane(); at - lane() < 2 * kParts; at += kWarp) {
      const bool is_v = at >= kParts, is_there = at < 2 * kParts;
      const int d = is_there ? (is_v ? at - kParts : at) * kPart : 0;
      float x[kPart];
      new_head(from, is_v).load(d, x);
      Stored* const shared =
          tile + (is_v ? S::kPlane : 0) + S::at(key, d) / static_cast<uint32_t>(sizeof(Stored));
      auto* const cached =
          reinterpret_cast<Stored*>((is_v ? to.v_plane : to.k_plane) + block_offset) +
          slot * kSize + d;
      const bool is_cached = block_offset >= 0;
      if constexpr (kHasScale<Stored>) {
        const Int8Scale scale(largest_of(x, kParts));
        if (d == 0 && is_there) {
          scales_of(stage)[(is_v ? kTileKeys : 0) + key] = scale.scale;
          if (is_cached) {
            reinterpret_cast<float*>((is_v ? to.v_scale : to.k_scale) + block_offset)[slot] =
                scale.scale;
          }
        }
        put(pack_bytes<Stored>(x, scale), shared, cached, is_there, is_cached);
      } else if constexpr (kWidens) {
        put(pack_bytes<Stored>(x, [](float value) { return from_float<Stored>(value); }), shared,
            cached, is_there, is_cached);
      } else {
        put(pack_part(x, is_bf16()), shared, cached, is_there, is_cached);
      }
    }
  }

  template <typename Packed>
  __device__ static void put(const Packed& packed, Stored* shared, Stored* cached, bool is_there,
                             bool is_cached) {
    if (is_there) *reinterpret_cast<Packed*>(shared) = packed;
    if (is_there && is_cached) *reinterpret_cast<Packed*>(cached) = packed;
  }

  int sequence_of_blocks_ = -1, block_of_lane_ = 0;
};

}  // namespace millrace::ops::generation
