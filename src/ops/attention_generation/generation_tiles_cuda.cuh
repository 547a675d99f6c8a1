// What a warp does with tiles of 16 keys: it copies them into a ring of its own and adds them to
// the sums of its query rows. These are the columns of the matrix instructions, 8 or 16: logits^T =
// K q^T, out^T = V^T weights^T.
//
// Tiles of 8 bits are copied as they are and widened to halves on their way to the products. The
// scale of a key multiplies its logits, that of a value its weights. For .cu files.
#pragma once

#include <type_traits>

#include "ops/attention_generation/generation_append_cuda.cuh"
#include "ops/attention_generation/generation_parts_cuda.cuh"
#include "ops/common/kv_widen_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops::generation {

inline constexpr float kLog2E = 1.44269504F;
inline constexpr unsigned kAll = 0xffffffffu;

__device__ inline uint32_t transposed(uint32_t matrix) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(matrix));
  return result;
}

/// Copies 16 bytes; if they may be missing and are not there, writes zeros.
template <bool kMayMiss>
__device__ inline void copy_to_shared(uint32_t to, const std::byte* from, bool is_there) {
  if constexpr (kMayMiss) {
    copy_async(to, from, is_there);
  } else {
    copy_async(to, from);
  }
}

/// Result of some keys for one query row, four elements of it. Logits are in powers of two.
struct Part {
  float largest = -INFINITY, total = 0;
  float4 sum = {0, 0, 0, 0};
};

/// What a part is multiplied by when the largest logit is `largest`: infinities do not cancel.
__device__ inline float weight_of(float own, float largest) {
  float weight;
  asm("ex2.approx.ftz.f32 %0, %1;"
      : "=f"(weight)
      : "f"(own - (largest == -INFINITY ? 0.0F : largest)));
  return weight;
}

/// Adds the keys of `next`. Every piece is added in the order of positions by this function, so
/// that the bits do not depend on the block that does it; nothing is left to be contracted.
__device__ inline void add_part(Part& to, const Part& next) {
  const float largest = fmaxf(to.largest, next.largest);
  const float a = weight_of(to.largest, largest), b = weight_of(next.largest, largest);
  to.largest = largest;
  to.total = fmaf(to.total, a, __fmul_rn(next.total, b));
  to.sum.x = fmaf(to.sum.x, a, __fmul_rn(next.sum.x, b));
  to.sum.y = fmaf(to.sum.y, a, __fmul_rn(next.sum.y, b));
  to.sum.z = fmaf(to.sum.z, a, __fmul_rn(next.sum.z, b));
  to.sum.w = fmaf(to.sum.w, a, __fmul_rn(next.sum.w, b));
}

/// Tiles in the ring of a warp: what keeps memory busy, and leaves room for all blocks.
constexpr int stages_of(int size, int column_tiles, int bytes) {
  if (bytes == 2) return size <= 64 ? 5 : size <= 96 ? 4 : 3;
  if (size <= 64) return 6;
  return size <= 128 && column_tiles == 1 ? 5 : 4;
}

/// Sizes of a kernel for heads of kSize elements and 8 * kColumnTiles query rows, over a cache of
/// kBytes an element.
template <int kSize, int kColumnTiles, int kBytes = 2>
struct Sizes {
  static constexpr int kHeadSize = kSize, kColumns = kColumnTiles, kWarps = kQuarters;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 8 * kColumnTiles;
  static constexpr int kChunk = 16 / kBytes;      // elements that are copied at once
  static constexpr int kStride = kSize + kChunk;  // rows of a matrix lie in different banks
  static constexpr int kPlane = kTileKeys * kStride;
  static constexpr int kScales = kBytes == 1 ? 2 * kTileKeys * 4 : 0;  // bytes
  static constexpr int kStage = 2 * kPlane + kScales;  // elements of a tile's K and V
  static constexpr int kStages = stages_of(kSize, kColumnTiles, kBytes);
  static constexpr int kBlocks = blocks_on_multiprocessor(kSize);  // of them
  static constexpr int kSumStride = kSize + 4;                     // floats
  static constexpr int kSumBytes = kRows * kSumStride * 4;
  /// Where a stage has no room for a warp's sums, they lie behind the rings.
  static constexpr bool kSumsApart = kStage * kBytes < kSumBytes;
  static constexpr int kVectors = (kRows * kSize / 4 + kThreads - 1) / kThreads;  // of a thread
  static constexpr int kRingBytes = kWarps * kStages * kStage * kBytes;
  static constexpr int kTileBytes = kRingBytes + (kSumsApart ? kWarps * kSumBytes : 0);
  static constexpr int kQueryStride = kSize + 8;  // of rotated queries, of 16 bits

  /// With the rotated queries [rows, kQueryStride] of a unit.
  static constexpr int shared_bytes(int rows) { return kTileBytes + rows * kQueryStride * 2; }

  /// Of one partial result: sums [rows, kSize], then (largest, total) [rows].
  __host__ __device__ static constexpr int partial_floats(int rows) { return rows * (kSize + 2); }
};

/// What the work of a warp is made of, whoever it shares it with. T: what products are made of.
/// Queries and results have that type, too, but where Stored has 8 bits.
template <typename T, int kSize, int kColumnTiles, typename Stored>
class Tiles {
 public:
  using S = Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>;
  static constexpr bool kWidens = sizeof(Stored) == 1;
  static constexpr int kRows = S::kRows;

  __device__ Tiles(const AttentionArgs& a, const Work& work, const Shares& shares,
                   std::byte* shared)
      : a_(a),
        w_(work),
        shares_(shares),
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
    copy_async_4(shared_address_of(ring_ + stage * S::kStage + 2 * S::kPlane) +
                     static_cast<uint32_t>(lane()) * 4,
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
          q_unit_[n][i] = __shfl_sync(kAll, unit, (lane() % 4 * 2 + i) * 4);
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

  __device__ void start_sums() {
    v_unit_ = kSmallestUnit;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        largest_[n][i] = -INFINITY;
        total_[n][i] = 0;
      }
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] = 0;
      }
    }
  }

  /// When all tiles have been added.
  __device__ void end_sums() {
    if constexpr (kHasScale<Stored>) scale_sums(v_unit_);
  }

  /// Which element of a head the sum [d, i] of a thread belongs to. Widened values are neighbours
  /// where others are 8 elements apart.
  __device__ static int element(int d, int i) {
    return kWidens ? d * 16 + lane() / 4 * 2 + i / 2 : d * 16 + i / 2 * 8 + lane() / 4;
  }

  /// Adds the tile in `stage`, whose copies have ended.
  __device__ void add_stage(int stage, const SequencePlan& plan, int tile) {
    const Stored* k = ring_ + stage * S::kStage;
    float weights[kColumnTiles][4];
    add_products(k, weights);
    if constexpr (kWidens) scale_products(k, weights);
    hide_keys(plan, tile, weights);
    weigh(weights);
    if constexpr (kHasScale<Stored>) scale_weights(k, weights);
    add_values(k + S::kPlane, weights);
    __syncwarp();
  }

  /// Partial result `slot` of a sharer, counted over all.
  __device__ int partial_number(unsigned sharer, int slot) const {
    return static_cast<int>(sharer) * w_.partial_slots + slot;
  }
  __device__ float* partial(int number) const {
    return w_.partials + int64_t{number} * S::partial_floats(w_.partial_rows);
  }

  __device__ void write(const Walk& walk, int row, int d, const Part& part) const {
    const int64_t at = head_row(walk, row);
    const float factor = 1 / total_of(at, part.largest, part.total);
    *reinterpret_cast<uint2*>(static_cast<T*>(a_.out) + at * kSize + d) = {
        pack_result(part.sum.x * factor, part.sum.y * factor),
        pack_result(part.sum.z * factor, part.sum.w * factor)};
  }

  __device__ uint32_t pack_result(float low, float high) const {
    return pack_as(low, high, is_bf16());
  }

  /// Where the pieces of the unit lie: those of the sharer where it begins have been added up. One
  /// warp does it, a lane has a piece.
  __device__ void find_partials(const Walk& walk, unsigned home, int* partial, int* count) {
    const SequencePlan& plan = walk.plan;
    const int piece = lane();
    const unsigned owner =
        piece < plan.pieces
            ? shares_.owner(walk.unit_start + static_cast<unsigned>(piece * plan.piece_tiles))
            : home;
    const bool is_home = owner == home && piece < plan.pieces;
    const int at_home = __popc(__ballot_sync(kAll, is_home));
    if (owner != home) {
      const auto tile = static_cast<int>(shares_.begin(owner) - walk.unit_start);
      const int slot = piece - div_up(tile, plan.piece_tiles);
      partial[piece - at_home + 1] = partial_number(owner, slot);
    }
    if (piece == 0) {
      partial[0] = partial_number(home, w_.partial_slots - 1);
      *count = plan.pieces - at_home + 1;
    }
  }

  /// Four elements of a unit's result, added over its `count` partial results.
  template <int kAtOnce>
  __device__ Part join_partials(const int* partials, int count, int row, int d) const {
    Part sum;
#pragma unroll 1
    for (int first = 0; first < count; first += kAtOnce) {
      Part parts[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        // Behind the last one stands the first one again, which is not added.
        const float* from = partial(partials[first + j < count ? first + j : 0]);
        const float* stats = from + w_.partial_rows * kSize + row * 2;
        parts[j].sum = __ldcg(reinterpret_cast<const float4*>(from + row * kSize + d));
        parts[j].largest = __ldcg(stats);
        parts[j].total = __ldcg(stats + 1);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (first + j < count) add_part(sum, parts[j]);
      }
    }
    return sum;
  }

  /// Counts pieces of the walk's unit, which begins at the sharer `home`, as stored; true if they
  /// are the last ones. For one thread, after what it and those that it met have stored.
  __device__ bool count_stored(const Walk& walk, unsigned home, int count) const {
    // What the others have stored is there after the count.
    unsigned* arrived = &arrivals[w_.queue][home];
    unsigned before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(arrived), "r"(static_cast<unsigned>(count))
                 : "memory");
    const bool is_last =
        before + static_cast<unsigned>(count) == static_cast<unsigned>(walk.plan.pieces);
    if (is_last) *arrived = 0;  // for the next launch
    return is_last;
  }

  const AttentionArgs& a_;
  const Work& w_;
  const Shares shares_;
  Stored* const ring_;  // this warp's
  float largest_[kColumnTiles][2], total_[kColumnTiles][2];
  float sums_[kColumnTiles][kSize / 16][4];

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
      Stored* const shared = tile + (is_v ? S::kPlane : 0) + key * S::kStride + d;
      auto* const cached =
          reinterpret_cast<Stored*>((is_v ? to.v_plane : to.k_plane) + block_offset) +
          slot * kSize + d;
      const bool is_cached = block_offset >= 0;
      if constexpr (kHasScale<Stored>) {
        const Int8Scale scale(largest_of(x, kParts));
        if (d == 0 && is_there) {
          auto* const scales = reinterpret_cast<float*>(tile + 2 * S::kPlane);
          scales[(is_v ? kTileKeys : 0) + key] = scale.scale;
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

  __device__ void scale_sums(float factor) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] *= factor;
      }
    }
  }

  /// Of a tile's keys, and behind them of its values.
  __device__ static auto scales_of(const Stored* k) {
    return reinterpret_cast<const float*>(k + 2 * S::kPlane);
  }

  /// To what the products are of the queries and keys themselves.
  __device__ void scale_products(const Stored* k, float (&products)[kColumnTiles][4]) const {
    float k_scale[2] = {1, 1};
    if constexpr (kHasScale<Stored>) {
      k_scale[0] = scales_of(k)[lane() / 4];
      k_scale[1] = scales_of(k)[lane() / 4 + 8];
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        products[n][i] *= q_unit_[n][i % 2] * k_scale[i / 2];
    }
  }

  /// In units of a power of two that is near the largest scale so far, so that halves hold them.
  __device__ void scale_weights(const Stored* k, float (&weights)[kColumnTiles][4]) {
    const float* scales = scales_of(k) + kTileKeys + lane() / 4;
    const float v_scale[2] = {scales[0], scales[8]};
    float largest = fmaxf(v_scale[0], v_scale[1]);
#pragma unroll
    for (int step = 4; step < kWarp; step *= 2)
      largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, step));
    const PowerOfTwo unit(fmaxf(largest, v_unit_));
    if (unit.value > v_unit_) {
      scale_sums(v_unit_ * unit.inverse());
      v_unit_ = unit.value;
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights[n][i] *= v_scale[i / 2] * unit.inverse();
    }
  }

  __device__ void add_products(const Stored* k, float (&products)[kColumnTiles][4]) const {
    const int matrix = lane() / 8;
    const uint32_t k_at =
        shared_address_of(k + (matrix % 2 * 8 + lane() % 8) * S::kStride + matrix / 2 * S::kChunk);
    uint32_t packed[4];
    float odd[kColumnTiles][4];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        products[n][i] = odd[n][i] = 0;
    }
#pragma unroll
    for (int step = 0; step < kSize / 16; ++step) {
      uint32_t keys[4];
      if constexpr (kWidens) {  // a load has the keys of two steps
        const int half = step % 2 * 2;
        if (half == 0) load_matrices(packed, k_at + static_cast<uint32_t>(step) * 16);
        widen_operand<Stored, Pairs::kNeighbours>(packed[half], packed[half + 1], keys);
      } else {
        load_matrices(keys, k_at + static_cast<uint32_t>(step) * 32);
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
        multiply_add<T>(step % 2 == 0 ? products[n] : odd[n], keys, q_[n][step]);
      }
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        products[n][i] += odd[n][i];
    }
  }

  /// Products become logits; those with keys that a row does not see, -inf. A thread has keys
  /// lane / 4 and lane / 4 + 8, columns lane % 4 * 2 and the one after.
  __device__ void hide_keys(const SequencePlan& plan, int tile,
                            float (&logits)[kColumnTiles][4]) const {
    const float scale = a_.scale * kLog2E;
    const int begin = plan.tile_begin(tile);
    const int low = plan.low(tile), high = plan.high(tile);
    const bool all_seen = begin >= low && begin + kTileKeys <= high &&
                          begin + kTileKeys <= plan.first_position + 1 &&
                          (a_.window == 0 || begin > plan.length - 1 - a_.window);
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        logits[n][i] *= scale;
    }
    if (all_seen) return;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = begin + lane() / 4 + i / 2 * 8;
        if (key < low || key >= high || !a_.sees(position_[n][i % 2], key)) {
          logits[n][i] = -INFINITY;
        }
      }
    }
  }

  /// Logits become weights; what was summed before is scaled down where a larger logit came.
  __device__ void weigh(float (&logits)[kColumnTiles][4]) {
    float correction[kColumnTiles][2];
    bool is_scaled = false;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float largest = fmaxf(logits[n][i], logits[n][i + 2]);
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2)
          largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, step));
        largest = fmaxf(largest, largest_[n][i]);
        correction[n][i] = weight_of(largest_[n][i], largest);
        is_scaled |= largest > largest_[n][i];
        largest_[n][i] = largest;
        logits[n][i] = weight_of(logits[n][i], largest);
        logits[n][i + 2] = weight_of(logits[n][i + 2], largest);
        total_[n][i] = fmaf(total_[n][i], correction[n][i], logits[n][i] + logits[n][i + 2]);
      }
    }
    // A factor of 1 changes no bit, so rows do not feel what others need.
    if (!__any_sync(kAll, is_scaled)) return;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] *= correction[n][i % 2];
      }
    }
  }

  __device__ void add_values(const Stored* v, const float (&weights)[kColumnTiles][4]) {
    const int matrix = lane() / 8;
    const int key = kWidens ? matrix % 2 * 8 : matrix / 2 * 8;
    const int first = kWidens ? matrix / 2 * S::kChunk : matrix % 2 * 8;  // element
    const uint32_t v_at = shared_address_of(v + (key + lane() % 8) * S::kStride + first);
    uint32_t packed[4];
    uint32_t p[kColumnTiles][2];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      p[n][0] = transposed(pack_pair<T>(weights[n][0], weights[n][1]));
      p[n][1] = transposed(pack_pair<T>(weights[n][2], weights[n][3]));
    }
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      uint32_t values[4];
      if constexpr (kWidens) {
        const int half = d % 2 * 2;
        if (half == 0) load_transposed(packed, v_at + static_cast<uint32_t>(d) * 16);
        widen_operand<Stored, Pairs::kAlternate>(packed[half], packed[half + 1], values);
      } else {
        load_transposed(values, v_at + static_cast<uint32_t>(d) * 32);
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
        multiply_add<T>(sums_[n][d], values, p[n]);
    }
  }

  int sequence_of_blocks_ = -1, block_of_lane_ = 0;
  int position_[kColumnTiles][2];
  uint32_t q_[kColumnTiles][kSize / 16][2];
  // 8 bits: powers of two that q_ and sums_ are to be multiplied by.
  float q_unit_[kColumnTiles][2];
  float v_unit_ = kSmallestUnit;
};

}  // namespace millrace::ops::generation
