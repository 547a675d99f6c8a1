// The kernel of attention_generation_mma_cuda. Every warp copies tiles of 16 keys into a ring of
// its own. A piece has four quarters, quarter i every fourth tile from tile i on: each of the four
// warps of a block has one, and they meet when the piece ends. Query rows are the columns of the
// matrix instructions, 8 or 16: logits^T = K q^T, out^T = V^T weights^T. For .cu files.
#pragma once

#include <type_traits>

#include "ops/attention_generation/generation_parts_cuda.cuh"
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

/// Sizes of a kernel for heads of kSize elements and 8 * kColumnTiles query rows.
template <int kSize, int kColumnTiles>
struct Sizes {
  static constexpr int kHeadSize = kSize, kColumns = kColumnTiles, kWarps = kQuarters;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 8 * kColumnTiles;
  static constexpr int kStride = kSize + 8;  // elements: rows of a matrix lie in different banks
  static constexpr int kPlane = kTileKeys * kStride;
  static constexpr int kStage = 2 * kPlane;  // elements of a tile's K and V
  static constexpr int kStages = kSize <= 64 ? 5 : kSize <= 96 ? 4 : 3;
  static constexpr int kBlocks = (kSize <= 128 ? 8 : 4) / kWarps;  // on a multiprocessor
  static constexpr int kSumStride = kSize + 4;  // floats; a stage has room for all rows
  static constexpr int kVectors = (kRows * kSize / 4 + kThreads - 1) / kThreads;  // of a thread
  static constexpr int kRingBytes = kWarps * kStages * kStage * 2;
  static_assert(kRows * kSumStride * 4 <= kStage * 2);

  static constexpr int shared_bytes(int sequences) { return kRingBytes + (sequences + 1) * 4; }
  /// Of one partial result: sums [rows, kSize], then (largest, total) [rows].
  __host__ __device__ static constexpr int partial_floats(int rows) { return rows * (kSize + 2); }
};

/// What the warps of a block tell each other.
template <int kRows, int kWarps>
struct Exchange {
  float2 stats[kWarps][kRows];  // largest, total
  int stage[kWarps];            // whose sums lie there
  int partial[kMaxPieces];      // numbers of partial results, in the order of pieces
  int num_partials;
  unsigned scratch[kWarps];
  bool is_last;
};

template <typename T, int kSize, int kColumnTiles>
class Kernel {
 public:
  using S = Sizes<kSize, kColumnTiles>;
  static constexpr int kRows = S::kRows, kWarps = S::kWarps, kThreads = S::kThreads;

  __device__ Kernel(const AttentionArgs& a, const Work& work, Exchange<kRows, kWarps>& exchange,
                    std::byte* shared)
      : a_(a),
        w_(work),
        x_(exchange),
        ring_(reinterpret_cast<T*>(shared) + warp() * S::kStages * S::kStage),
        all_rings_(reinterpret_cast<T*>(shared)),
        offsets_(reinterpret_cast<unsigned*>(shared + S::kRingBytes)) {}

  __device__ void run() {
    touch_blocks();
    add_up_tiles<kThreads>(a_, w_, kRows, offsets_, x_.scratch);
    shares_ = Shares(offsets_[w_.sequences], gridDim.x);
    // Blocks that get work where there is little of it are spread over the multiprocessors.
    block_ = blockIdx.x % kMultiprocessors * static_cast<unsigned>(w_.blocks_per_multiprocessor) +
             blockIdx.x / kMultiprocessors;
    const unsigned begin = shares_.begin(block_);
    end_ = shares_.begin(block_ + 1);
    if (begin < end_) {
      now_ = find_piece(a_, w_, offsets_, kRows, begin);
      attend();
      wait_for_copies<0>();
    } else if (block_ == 0) {
      device::wait_for_predecessor();
    }
    // Other blocks without work make room for the next kernel's at once: block 0 has work if any
    // has, so that this kernel never ends before the one in front of it.
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  /// Brings a small block table into the cache while lengths are read.
  __device__ void touch_blocks() const {
    constexpr int kLine = 32;  // entries
    const int64_t entry = static_cast<int64_t>(threadIdx.x) * kLine;
    const int64_t entries = w_.sequences * a_.blocks_per_sequence;
    if (entries > kThreads * kLine || entry >= entries) return;
    const int32_t* at = a_.blocks + a_.first_sequence * a_.blocks_per_sequence + entry;
    int block;
    asm volatile("ld.global.s32 %0, [%1];" : "=r"(block) : "l"(at) : "memory");
  }

  /// All pieces of this block, tile by tile. Lengths and block tables are copied from the host
  /// before the first kernel of a step, and a step's kernels write keys of its own tokens only: so
  /// these and the keys of earlier steps are read while the kernel before this one still runs.
  __device__ void attend() {
    ahead_ = now_;
    ahead_tile_ = ahead_.piece_begin() + warp();
    Result result;
    bool waited = false;
    int tile = 0;
    bool in_quarter = false;
    int refill = -1;  // the stage to be filled; a fetch to no stage only finds the first tile
    for (int filled = -1;;) {
      if (!waited && !is_ahead_old()) {
        device::wait_for_predecessor();
        waited = true;
      }
      if (refill >= 0 || filled < 0) fetch(refill);
      if (filled < S::kStages) {
        refill = ++filled;
        if (filled < S::kStages) continue;
      }
      if (!waited) device::wait_for_predecessor();
      waited = true;
      if (!in_quarter) {
        if (now_.piece == now_.plan.pieces) next_unit(a_, w_, offsets_, kRows, &now_);
        if (now_.start() >= end_) return;
        if (rows_ == 0) enter_unit(result);
        start_quarter();
        tile = now_.piece_begin() + warp();
        in_quarter = true;
      }
      refill = -1;
      const int end = now_.piece_end();
      if (tile < end) {
        refill = stage_;
        add_tile(tile);
        tile += kQuarters;
        if (tile < end) continue;
      }
      finish_quarter(refill, result);
      in_quarter = false;
    }
  }

  /// Whether the tile that is fetched next holds keys of earlier steps only.
  __device__ bool is_ahead_old() const {
    return ahead_state_ != Ahead::kTile ||
           ahead_.plan.tile_begin(ahead_tile_) + kTileKeys <= ahead_.plan.first_position;
  }

  /// Goes on to the next piece of which this warp has a tile, unless it is at one; and looks up the
  /// tile's block, so that it is there when the tile is fetched.
  __device__ void skip_to_tile() {
    while (ahead_tile_ >= ahead_.piece_end()) {
      if (++ahead_.piece >= ahead_.plan.pieces) next_unit(a_, w_, offsets_, kRows, &ahead_);
      if (ahead_.start() >= end_) {
        ahead_state_ = Ahead::kDone;
        return;
      }
      ahead_tile_ = ahead_.piece_begin() + warp();
    }
    ahead_state_ = Ahead::kTile;
    const int64_t row = a_.first_sequence + ahead_.sequence;
    ahead_block_ = a_.blocks[row * a_.blocks_per_sequence +
                             (ahead_.plan.tile_begin(ahead_tile_) >> w_.block_shift)];
  }

  /// Starts to copy the next tile.
  __device__ void fetch(int stage) {
    if (ahead_state_ == Ahead::kTile) {
      const SequencePlan& plan = ahead_.plan;
      const int begin = plan.tile_begin(ahead_tile_);
      const int low = plan.low(ahead_tile_) - begin, high = plan.high(ahead_tile_) - begin;
      const int kv_head = plan.row_tiles == 1 ? ahead_.unit : ahead_.unit / plan.row_tiles;
      const int slot = begin - (begin >> w_.block_shift << w_.block_shift);
      const int64_t from = ahead_block_ * a_.block_bytes +
                           (int64_t{kv_head} * a_.tokens_per_block + slot) * (kSize * 2);
      if (low <= 0 && high >= kTileKeys) {
        copy_tile<false>(stage, from, low, high);
      } else {
        copy_tile<true>(stage, from, low, high);
      }
      ahead_tile_ += kQuarters;
    }
    if (ahead_state_ != Ahead::kDone) skip_to_tile();
    commit_copies();
  }

  /// Keys that do not count, those before `low` and from `high` on, become zeros: their weights are
  /// 0, but what lies there may be no number.
  template <bool kMayMiss>
  __device__ void copy_tile(int stage, int64_t from, int low, int high) {
    constexpr unsigned kChunks = kSize / 8;
    const auto first = static_cast<unsigned>(lane());
    const uint32_t to = shared_address_of(ring_ + stage * S::kStage);
    const uint32_t first_to = to + (first / kChunks * S::kStride + first % kChunks * 8) * 2;
    const std::byte* k = a_.k + from + first * 16;
    const std::byte* v = a_.v + from + first * 16;
#pragma unroll
    for (unsigned i = 0; i < kTileKeys * kChunks / kWarp; ++i) {
      const unsigned chunk = first + i * kWarp;
      const unsigned key = chunk / kChunks;
      const bool is_there = static_cast<int>(key) >= low && static_cast<int>(key) < high;
      uint32_t at = to + (key * S::kStride + chunk % kChunks * 8) * 2;
      // Whole rows at a time: a constant away from the first.
      if constexpr (kWarp % kChunks == 0) at = first_to + i * (kWarp / kChunks * S::kStride * 2);
      copy_to_shared<kMayMiss>(at, k + i * (kWarp * 16), is_there);
      copy_to_shared<kMayMiss>(at + S::kPlane * 2, v + i * (kWarp * 16), is_there);
    }
  }

  /// What a thread has of the results of a unit: of the pieces before, and of the quarters of the
  /// piece that is computed.
  struct Result {
    Part unit[S::kVectors];
    Part piece[S::kVectors];
  };

  /// Adds the results of all warps, which are those of a piece, and writes or stores
  /// the unit's if this block is through with it.
  __device__ void finish_quarter(int last_stage, Result& result) {
    share_sums(last_stage);
    gather(result);
    add_piece(result);
    ++count_;
    ++now_.piece;
    if (now_.piece < now_.plan.pieces && now_.start() < end_) return;
    if (count_ == now_.plan.pieces) {
      for_each_vector([&](int i, int row, int d) { write(row, d, result.unit[i]); });
    } else {
      // Pieces in the middle of a unit lie in the slots before.
      const int slot = w_.partial_slots - 1;
      if (first_piece_ == 0) {
        for_each_vector([&](int i, int row, int d) { store_part(slot, row, d, result.unit[i]); });
      }
      announce();
    }
    rows_ = 0;
  }

  /// Calls function(i, row, d) for every i-th of this thread's groups of four elements, from d on,
  /// of the unit's result.
  template <typename F>
  __device__ void for_each_vector(const F& function) const {
#pragma unroll
    for (int i = 0; i < S::kVectors; ++i) {
      const int at = static_cast<int>(threadIdx.x) + i * kThreads;
      const int row = at / (kSize / 4);
      if (row < rows_) function(i, row, at % (kSize / 4) * 4);
    }
  }

  /// (row of the step) * heads + head.
  __device__ int64_t head_row(int row) const {
    const int kv_head = now_.unit / now_.plan.row_tiles;
    const int at = now_.unit % now_.plan.row_tiles * kRows + row;
    return int64_t{now_.plan.row_start + at / a_.group} * a_.heads + kv_head * a_.group +
           at % a_.group;
  }

  /// Queries are the B operands of all products of the unit; rows that are not there are zeros.
  __device__ void enter_unit(Result& result) {
#pragma unroll
    for (int i = 0; i < S::kVectors; ++i)
      result.unit[i] = result.piece[i] = Part{};
    first_piece_ = now_.piece;
    count_ = 0;
    const int first_row = now_.unit % now_.plan.row_tiles * kRows;
    rows_ = min(now_.plan.tokens * a_.group - first_row, kRows);
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int row = n * 8 + lane() / 4;
      const bool is_there = row < rows_;
      const auto* q =
          static_cast<const T*>(a_.q) + (is_there ? head_row(row) * kSize + lane() % 4 * 2 : 0);
#pragma unroll
      for (int step = 0; step < kSize / 16; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          q_[n][step][half] =
              is_there ? *reinterpret_cast<const uint32_t*>(q + step * 16 + half * 8) : 0;
        }
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + lane() % 4 * 2 + i;
        position_[n][i] = now_.plan.first_position + (first_row + column) / a_.group;
      }
    }
  }

  __device__ void start_quarter() {
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

  __device__ void add_tile(int tile) {
    wait_for_copies<S::kStages - 1>();
    __syncwarp();
    const T* k = ring_ + stage_ * S::kStage;
    float weights[kColumnTiles][4];
    add_products(k, weights);
    hide_keys(tile, weights);
    weigh(weights);
    add_values(k + S::kPlane, weights);
    __syncwarp();
    stage_ = stage_ + 1 == S::kStages ? 0 : stage_ + 1;
  }

  __device__ void add_products(const T* k, float (&products)[kColumnTiles][4]) const {
    const int matrix = lane() / 8;
    const uint32_t k_at =
        shared_address_of(k + (matrix % 2 * 8 + lane() % 8) * S::kStride + matrix / 2 * 8);
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
      load_matrices(keys, k_at + static_cast<uint32_t>(step) * 32);
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
  __device__ void hide_keys(int tile, float (&logits)[kColumnTiles][4]) const {
    const SequencePlan& plan = now_.plan;
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

  __device__ void add_values(const T* v, const float (&weights)[kColumnTiles][4]) {
    const int matrix = lane() / 8;
    const uint32_t v_at =
        shared_address_of(v + (matrix / 2 * 8 + lane() % 8) * S::kStride + matrix % 2 * 8);
    uint32_t p[kColumnTiles][2];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      p[n][0] = transposed(pack_pair<T>(weights[n][0], weights[n][1]));
      p[n][1] = transposed(pack_pair<T>(weights[n][2], weights[n][3]));
    }
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      uint32_t values[4];
      load_transposed(values, v_at + static_cast<uint32_t>(d) * 32);
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
        multiply_add<T>(sums_[n][d], values, p[n]);
    }
  }

  /// Puts this warp's result where the other warps find it: in the stage of its last tile, which is
  /// to be refilled when they have read it. -1: it had no tile.
  __device__ void share_sums(int stage) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float total = total_[n][i];
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2)
          total += __shfl_xor_sync(kAll, total, step);
        if (lane() < 4) x_.stats[warp()][n * 8 + lane() * 2 + i] = {largest_[n][i], total};
      }
    }
    if (lane() == 0) x_.stage[warp()] = stage;
    if (stage < 0) return;
    auto* to = reinterpret_cast<float*>(ring_ + stage * S::kStage) +
               lane() % 4 * 2 * S::kSumStride + lane() / 4;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          to[(n * 8 + i % 2) * S::kSumStride + d * 16 + i / 2 * 8] = sums_[n][d][i];
      }
    }
  }

  /// Adds what the warps have shared to the piece's result, each thread some elements.
  __device__ void gather(Result& result) {
    __syncthreads();
    for_each_vector([&](int i, int row, int d) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const int stage = x_.stage[w];
        if (stage < 0) continue;
        const float2 stats = x_.stats[w][row];
        const auto* from =
            reinterpret_cast<const float*>(all_rings_ + (w * S::kStages + stage) * S::kStage);
        add_part(
            result.piece[i],
            {stats.x, stats.y, *reinterpret_cast<const float4*>(from + row * S::kSumStride + d)});
      }
    });
    __syncthreads();
  }

  /// To the unit's result where all pieces before are this block's, else it is stored by itself.
  __device__ void add_piece(Result& result) {
    for_each_vector([&](int i, int row, int d) {
      if (first_piece_ == 0) {
        add_part(result.unit[i], result.piece[i]);
      } else {
        store_part(count_, row, d, result.piece[i]);
      }
      result.piece[i] = Part{};
    });
  }

  /// Partial result `slot` of a block, counted over all blocks.
  __device__ int partial_number(unsigned block, int slot) const {
    return static_cast<int>(block) * w_.partial_slots + slot;
  }
  __device__ float* partial(int number) const {
    return w_.partials + int64_t{number} * S::partial_floats(w_.partial_rows);
  }

  __device__ void store_part(int slot, int row, int d, const Part& part) const {
    float* to = partial(partial_number(block_, slot));
    *reinterpret_cast<float4*>(to + row * kSize + d) = part.sum;
    if (d == 0) {
      to += w_.partial_rows * kSize + row * 2;
      *reinterpret_cast<float2*>(to) = {part.largest, part.total};
    }
  }

  __device__ void write(int row, int d, const Part& part) const {
    const int64_t at = head_row(row);
    const float total =
        total_with_sink(a_, static_cast<int>(at % a_.heads), part.largest, part.total);
    *reinterpret_cast<uint2*>(static_cast<T*>(a_.out) + at * kSize + d) = {
        pack_pair<T>(part.sum.x / total, part.sum.y / total),
        pack_pair<T>(part.sum.z / total, part.sum.w / total)};
  }

  /// Some pieces of the unit are stored; the block that stores the last ones joins them all.
  __device__ void announce() {
    __syncthreads();
    const unsigned home = shares_.owner(now_.unit_start);
    if (threadIdx.x == 0) {
      // What the block has stored is there before the count, what others have stored after it.
      unsigned* arrived = &arrivals[w_.queue][home];
      const auto count = static_cast<unsigned>(count_);
      unsigned before;
      asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                   : "=r"(before)
                   : "l"(arrived), "r"(count)
                   : "memory");
      x_.is_last = before + count == static_cast<unsigned>(now_.plan.pieces);
      if (x_.is_last) *arrived = 0;  // for the next launch
    }
    // Meanwhile, in case it is the last.
    if (warp() == kWarps - 1) find_partials(home);
    __syncthreads();
    if (x_.is_last) join();
  }

  /// Where the pieces of the unit lie: those of the block where it begins have been added up. One
  /// warp does it, a lane has a piece.
  __device__ void find_partials(unsigned home) {
    const SequencePlan& plan = now_.plan;
    const int piece = lane();
    const unsigned owner =
        piece < plan.pieces
            ? shares_.owner(now_.unit_start + static_cast<unsigned>(piece * plan.piece_tiles))
            : home;
    const bool is_home = owner == home && piece < plan.pieces;
    const int at_home = __popc(__ballot_sync(kAll, is_home));
    if (owner != home) {
      const auto tile = static_cast<int>(shares_.begin(owner) - now_.unit_start);
      const int slot = piece - div_up(tile, plan.piece_tiles);
      x_.partial[piece - at_home + 1] = partial_number(owner, slot);
    }
    if (piece == 0) {
      x_.partial[0] = partial_number(home, w_.partial_slots - 1);
      x_.num_partials = plan.pieces - at_home + 1;
    }
  }

  __device__ void join() {
    const int count = x_.num_partials;
    for (int at = static_cast<int>(threadIdx.x); at < rows_ * (kSize / 4); at += kThreads) {
      const int row = at / (kSize / 4), d = at % (kSize / 4) * 4;
      constexpr int kAtOnce = kSize * kColumnTiles > 128 ? 4 : 16;
      Part sum;
#pragma unroll 1
      for (int first = 0; first < count; first += kAtOnce) {
        Part parts[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) {
          // Behind the last one stands the first one again, which is not added.
          const float* from = partial(x_.partial[first + j < count ? first + j : 0]);
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
      write(row, d, sum);
    }
    __syncthreads();  // what was found may be overwritten
  }

  enum class Ahead { kStart, kTile, kDone };

  const AttentionArgs& a_;
  const Work& w_;
  Exchange<kRows, kWarps>& x_;
  T* const ring_;  // this warp's
  const T* const all_rings_;
  unsigned* const offsets_;  // [sequences + 1]
  Shares shares_;
  unsigned block_, end_;  // its number, and the first tile of the next block's part
  Walk now_;              // the piece that is computed
  Walk ahead_;            // the piece of the tile that is fetched next
  int ahead_tile_ = 0;
  int64_t ahead_block_ = 0;
  Ahead ahead_state_ = Ahead::kStart;
  int stage_ = 0;                    // of the next tile to be computed
  int rows_ = 0;                     // of the unit; 0 when the next piece is of another one
  int first_piece_ = 0, count_ = 0;  // the unit's first piece here, and how many are done
  int position_[kColumnTiles][2];
  uint32_t q_[kColumnTiles][kSize / 16][2];
  float largest_[kColumnTiles][2], total_[kColumnTiles][2];
  float sums_[kColumnTiles][kSize / 16][4];
};

/// Grid: as many blocks as fit at once.
template <typename T, int kSize, int kColumnTiles>
__global__ void __launch_bounds__(Sizes<kSize, kColumnTiles>::kThreads,
                                  (Sizes<kSize, kColumnTiles>::kBlocks))
    attend_generation(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work) {
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ Exchange<8 * kColumnTiles, kQuarters> exchange;
  device::let_successor_start();
  Kernel<T, kSize, kColumnTiles>(a, work, exchange, shared).run();
}

}  // namespace millrace::ops::generation
