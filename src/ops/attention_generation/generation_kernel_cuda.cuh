// The kernel of attention_generation_mma_cuda. A block has a run of pieces, often all of a unit.
// Its warps share each piece, which has four quarters, quarter i every fourth tile from tile i on:
// each of the four warps has one, and they meet when the piece ends. For .cu files.
#pragma once

#include "ops/attention_generation/generation_tiles_cuda.cuh"

namespace millrace::ops::generation {

/// What the warps of a block tell each other.
template <int kRows, int kWarps>
struct Exchange {
  float2 stats[kWarps][kRows];  // largest, total
  int stage[kWarps];            // whose sums lie there
  int partial[kMaxPieces];      // numbers of partial results, in the order of pieces
  int num_partials;
  bool is_last;
};

/// kBends: see Tiles.
template <typename T, int kSize, int kColumnTiles, typename Stored, bool kBends = false>
class Kernel : private Tiles<T, kSize, kColumnTiles, Stored,
                             Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>, kBends> {
 public:
  using Base = Tiles<T, kSize, kColumnTiles, Stored,
                     Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>, kBends>;
  using typename Base::S;
  static constexpr int kRows = S::kRows, kWarps = S::kWarps, kThreads = S::kThreads;

  __device__ Kernel(const AttentionArgs& a, const Work& work, const Shares& shares,
                    Exchange<kRows, kWarps>& exchange, std::byte* shared)
      : Base(a, work, shares, shared), x_(exchange), all_rings_(shared) {}

  /// REQUIRES: the item has work.
  __device__ void run(const WorkItem& item) {
    block_ = item.sharer;
    now_ = item.walk();
    bool waited = false;
    do {
      attend(pieces_before(item.end), waited);
      next_unit(w_.division, w_.lengths, item.end, &now_);
    } while (now_.start() < item.end);
  }

 private:
  using Base::a_, Base::w_, Base::shares_, Base::lane, Base::warp;
  using Base::largest_, Base::total_, Base::sums_;

  /// The unit's first piece that does not begin before the tile `end` of all.
  __device__ int pieces_before(unsigned end) const {
    const unsigned tiles = end - now_.unit_start;
    if (tiles >= static_cast<unsigned>(now_.plan.tiles)) return now_.plan.pieces;
    return div_up(static_cast<int>(tiles), now_.plan.piece_tiles);
  }

  /// What a thread has of the results of a unit: of all pieces so far, and of one.
  struct Result {
    Part unit[S::kVectors];
    Part piece[S::kVectors];
  };

  /// The unit's pieces up to `last`, tile by tile; a warp goes on from one to the next. What is
  /// read while the kernel before this one still runs: the plan, see load_item(); lengths and block
  /// tables, which the first kernel of the step brought, see device/cuda/step_transfers.cu; and
  /// keys of earlier steps. These were there before the step began, and no kernel of a step moves
  /// or overwrites them: it writes keys of its own tokens only, and beams, which change places, are
  /// followed by another tactic. So where this kernel appends, all that it copies is read before it
  /// waits.
  __device__ void attend(int last, bool& waited) {
    first_piece_ = now_.piece;
    end_tile_ = smaller(last * now_.plan.piece_tiles, now_.plan.tiles);
    // Quarter i has tiles i, i + kQuarters, ... of the unit.
    const int first = now_.piece_begin();
    int tile = first + ((warp() - first) & (kQuarters - 1));
    fetched_tile_ = tile;
#pragma unroll 1
    for (int stage = 0; stage < S::kStages; ++stage) {
      if (!waited && fetched_tile_ < end_tile_ && !this->is_old(now_.plan, fetched_tile_)) {
        device::wait_for_predecessor();
        waited = true;
      }
      fetch(stage);
    }
    if (!waited) device::wait_for_predecessor();
    waited = true;
    enter_unit();
    Result result;
    int stage = 0;             // of the next tile
    int read = -1, freed = 0;  // the stage of the last one; stages that were read, up to this one
    for (; now_.piece < last; ++now_.piece) {
      this->start_sums();
      bool has_tile = false;
#pragma unroll 1
      for (const int end = now_.piece_end(); tile < end; tile += freed * kQuarters) {
        refill(stage, freed);
        wait_for_copies<S::kStages - Base::kAtOnce>();
        __syncwarp();
        const int first_stage = stage;
        freed = 0;
#pragma unroll 1
        do {
          this->append_keys(stage, now_, tile + freed * kQuarters);
          read = stage;
          stage = this->after(stage);
          ++freed;
        } while (freed < Base::kAtOnce && tile + freed * kQuarters < end);
        this->add_stages(first_stage, freed, now_.plan, tile);
        has_tile = true;
      }
      share_sums(has_tile ? read : -1);
      gather(result);
      add_piece(result);
    }
    wait_for_copies<0>();
    finish_unit(result);
  }

  /// Starts to copy tiles into the last `count` stages before `stage`.
  __device__ void refill(int stage, int count) {
    int to = stage - count;
    if (to < 0) to += S::kStages;
#pragma unroll 1
    for (; count > 0; --count) {
      fetch(to);
      to = this->after(to);
    }
  }

  /// Starts to copy the next tile, if there is one.
  __device__ void fetch(int stage) {
    if (fetched_tile_ < end_tile_) {
      this->fetch_tile(stage, now_, fetched_tile_, this->block_of(now_, fetched_tile_));
    }
    fetched_tile_ += kQuarters;
    commit_copies();
  }

  /// Writes the unit's result if all of its pieces are this block's, else stores it.
  __device__ void finish_unit(const Result& result) {
    if (first_piece_ == 0 && now_.piece == now_.plan.pieces) {
      for_each_vector([&](int i, int row, int d) { this->write(now_, row, d, result.unit[i]); });
      return;
    }
    // Pieces in the middle of a unit lie in the slots before.
    const int slot = w_.partial_slots - 1;
    if (first_piece_ == 0) {
      for_each_vector(
          [&](int i, int row, int d) { this->store_part(block_, slot, row, d, result.unit[i]); });
    }
    announce();
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

  __device__ void enter_unit() {
    rows_ = this->count_rows(now_);
    this->prefetch_new_key(now_, static_cast<int>(threadIdx.x));
    uint16_t* queries = nullptr;
    if (!this->rotates_in_place()) {
      queries = reinterpret_cast<uint16_t*>(all_rings_ + S::kTileBytes);
      this->rotate_queries(now_, rows_, static_cast<int>(threadIdx.x), kThreads, queries);
      __syncthreads();  // they are read before the next unit's, as warps meet in between
    }
    this->load_queries(now_, rows_, queries);
    if constexpr (kBends) this->find_slopes(now_);
  }

  /// Where a warp's sums lie for the others.
  __device__ float* shared_sums(int of_warp, int stage) const {
    const int at = S::kSumsApart ? S::kRingBytes + of_warp * S::kSumBytes
                                 : (of_warp * S::kStages + stage) * S::kStage *
                                       static_cast<int>(sizeof(Stored));
    return reinterpret_cast<float*>(all_rings_ + at);
  }

  /// Puts this warp's result where the other warps find it: in the stage of its last tile, if it
  /// has room, which is to be refilled when they have read it. -1: it had no tile.
  __device__ void share_sums(int stage) {
    this->end_sums();
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
    float* to = shared_sums(warp(), stage) + lane() % 4 * 2 * S::kSumStride;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      if (n * 8 + lane() % 4 * 2 >= rows_) continue;
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          to[(n * 8 + i % 2) * S::kSumStride + this->element(d, i)] = sums_[n][d][i];
      }
    }
  }

  /// The result of a piece from what the warps have shared, each thread some elements.
  __device__ void gather(Result& result) {
    __syncthreads();
    for_each_vector([&](int i, int row, int d) {
      float2 stats[kWarps];
      Part piece;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        stats[w] = x_.stats[w][row];
        piece.largest = fmaxf(piece.largest, stats[w].x);
      }
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const int stage = x_.stage[w];
        if (stage < 0) continue;
        const float factor = weight_of(stats[w].x, piece.largest);
        const float4 sum =
            *reinterpret_cast<const float4*>(shared_sums(w, stage) + row * S::kSumStride + d);
        piece.total = fmaf(stats[w].y, factor, piece.total);
        piece.sum.x = fmaf(sum.x, factor, piece.sum.x);
        piece.sum.y = fmaf(sum.y, factor, piece.sum.y);
        piece.sum.z = fmaf(sum.z, factor, piece.sum.z);
        piece.sum.w = fmaf(sum.w, factor, piece.sum.w);
      }
      result.piece[i] = piece;
    });
    __syncthreads();
  }

  /// To the unit's result where all pieces before are this block's, else it is stored by itself.
  __device__ void add_piece(Result& result) {
    for_each_vector([&](int i, int row, int d) {
      if (first_piece_ > 0) {
        this->store_part(block_, now_.piece - first_piece_, row, d, result.piece[i]);
      } else if (now_.piece == 0) {
        result.unit[i] = result.piece[i];
      } else {
        add_part(result.unit[i], result.piece[i]);
      }
    });
  }

  /// Some pieces of the unit are stored; the block that stores the last ones joins them all.
  __device__ void announce() {
    __syncthreads();
    const unsigned home = shares_.owner(now_.unit_start);
    if (threadIdx.x == 0) x_.is_last = this->count_stored(now_, home, now_.piece - first_piece_);
    // Meanwhile, in case it is the last.
    if (warp() == kWarps - 1) {
      this->find_partials(now_, home, x_.partial, &x_.num_partials);
    }
    __syncthreads();
    if (!x_.is_last) return;
    this->write_joined(now_, rows_, x_.partial, x_.num_partials);
    __syncthreads();  // what was found may be overwritten
  }

  Exchange<kRows, kWarps>& x_;
  std::byte* const all_rings_;
  unsigned block_ = 0;  // its number
  Walk now_;            // the piece that is computed
  int first_piece_ = 0,
      end_tile_ = 0;      // of the unit's: this block's first one, and behind its last
  int fetched_tile_ = 0;  // the next tile to be copied
  int rows_ = 0;          // of the unit
};

/// Grid: a block for each KV head of each sequence, and as many as run at once. T: void if the
/// launch tells whether queries and keys are bf16 or f16; Stored then is any type of 16 bits.
template <typename T, int kSize, int kColumnTiles, typename Stored>
__global__ void __launch_bounds__(Sizes<kSize, kColumnTiles>::kThreads,
                                  (Sizes<kSize, kColumnTiles>::kBlocks))
    attend_generation(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work) {
  using S = Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ Exchange<S::kRows, S::kWarps> exchange;
  device::let_successor_start();
  const WorkItem item = load_item(a, work);
  if (item.has_work == 0) {
    // Makes room for the next kernel's blocks at once. Some block waits, so that this kernel never
    // ends before the one in front of it: sharer 0, which has work if any has, or block 0.
    if (item.sharer == 0) device::wait_for_predecessor();
    return;
  }
  const Shares shares(item.tiles, item.sharers);
  if constexpr (!std::is_void_v<T>) {
    Kernel<T, kSize, kColumnTiles, Stored, true>(a, work, shares, exchange, shared).run(item);
  } else if (a.type == ir::DType::kBF16) {
    using BF16 = __nv_bfloat16;
    Kernel<BF16, kSize, kColumnTiles, BF16, true>(a, work, shares, exchange, shared).run(item);
  } else {
    Kernel<__half, kSize, kColumnTiles, __half, true>(a, work, shares, exchange, shared).run(item);
  }
}

}  // namespace millrace::ops::generation
