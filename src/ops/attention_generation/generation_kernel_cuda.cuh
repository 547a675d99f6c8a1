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

template <typename T, int kSize, int kColumnTiles, typename Stored>
class Kernel : private Tiles<T, kSize, kColumnTiles, Stored> {
 public:
  using Base = Tiles<T, kSize, kColumnTiles, Stored>;
  using typename Base::S;
  static constexpr int kRows = S::kRows, kWarps = S::kWarps, kThreads = S::kThreads;

  __device__ Kernel(const AttentionArgs& a, const Work& work, const Shares& shares,
                    Exchange<kRows, kWarps>& exchange, std::byte* shared)
      : Base(a, work, shares, shared), x_(exchange), all_rings_(shared) {}

  /// REQUIRES: the item has work.
  __device__ void run(const WorkItem& item) {
    block_ = item.sharer;
    end_ = item.end;
    now_ = item.walk();
    attend();
    wait_for_copies<0>();
  }

 private:
  using Base::a_, Base::w_, Base::shares_, Base::lane, Base::warp;
  using Base::largest_, Base::total_, Base::sums_;

  /// All pieces of this block, tile by tile. What is read while the kernel before this one still
  /// runs: the plan, see load_item(); lengths and block tables, which the first kernel of the step
  /// brought, see device/cuda/step_transfers.cu; and keys of earlier steps. These were there before
  /// the step began, and no kernel of a step moves or overwrites them: it writes keys of its own
  /// tokens only, and beams, which change places, are followed by another tactic. So where this
  /// kernel appends, all that it copies is read before it waits.
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
        if (now_.piece == now_.plan.pieces) next_unit(w_.division, w_.lengths, end_, &now_);
        if (now_.start() >= end_) return;
        if (rows_ == 0) enter_unit(result);
        this->start_sums();
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
    return ahead_state_ != Ahead::kTile || this->is_old(ahead_.plan, ahead_tile_);
  }

  /// Goes on to the next piece of which this warp has a tile, unless it is at one; and looks up the
  /// tile's block, so that it is there when the tile is fetched.
  __device__ void skip_to_tile() {
    while (ahead_tile_ >= ahead_.piece_end()) {
      if (++ahead_.piece >= ahead_.plan.pieces) next_unit(w_.division, w_.lengths, end_, &ahead_);
      if (ahead_.start() >= end_) {
        ahead_state_ = Ahead::kDone;
        return;
      }
      ahead_tile_ = ahead_.piece_begin() + warp();
    }
    ahead_state_ = Ahead::kTile;
    ahead_block_ = this->block_of(ahead_, ahead_tile_);
  }

  /// Starts to copy the next tile.
  __device__ void fetch(int stage) {
    if (ahead_state_ == Ahead::kTile) {
      this->fetch_tile(stage, ahead_, ahead_tile_, ahead_block_);
      ahead_tile_ += kQuarters;
    }
    if (ahead_state_ != Ahead::kDone) skip_to_tile();
    commit_copies();
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
      for_each_vector([&](int i, int row, int d) { this->write(now_, row, d, result.unit[i]); });
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

  __device__ void enter_unit(Result& result) {
#pragma unroll
    for (int i = 0; i < S::kVectors; ++i)
      result.unit[i] = result.piece[i] = Part{};
    first_piece_ = now_.piece;
    count_ = 0;
    rows_ = this->count_rows(now_);
    this->prefetch_new_key(now_, static_cast<int>(threadIdx.x));
    uint16_t* queries = nullptr;
    if (!this->rotates_in_place()) {
      queries = reinterpret_cast<uint16_t*>(all_rings_ + S::kTileBytes);
      this->rotate_queries(now_, rows_, static_cast<int>(threadIdx.x), kThreads, queries);
      __syncthreads();  // they are read before the next unit's, as warps meet in between
    }
    this->load_queries(now_, rows_, queries);
  }

  __device__ void add_tile(int tile) {
    wait_for_copies<S::kStages - 1>();
    __syncwarp();
    this->append_keys(stage_, now_, tile);
    this->add_stage(stage_, now_.plan, tile);
    stage_ = stage_ + 1 == S::kStages ? 0 : stage_ + 1;
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
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          to[(n * 8 + i % 2) * S::kSumStride + this->element(d, i)] = sums_[n][d][i];
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
        const float* from = shared_sums(w, stage);
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

  __device__ void store_part(int slot, int row, int d, const Part& part) const {
    float* to = this->partial(this->partial_number(block_, slot));
    *reinterpret_cast<float4*>(to + row * kSize + d) = part.sum;
    if (d == 0) {
      to += w_.partial_rows * kSize + row * 2;
      *reinterpret_cast<float2*>(to) = {part.largest, part.total};
    }
  }

  /// Some pieces of the unit are stored; the block that stores the last ones joins them all.
  __device__ void announce() {
    __syncthreads();
    const unsigned home = shares_.owner(now_.unit_start);
    if (threadIdx.x == 0) x_.is_last = this->count_stored(now_, home, count_);
    // Meanwhile, in case it is the last.
    if (warp() == kWarps - 1) {
      this->find_partials(now_, home, x_.partial, &x_.num_partials);
    }
    __syncthreads();
    if (x_.is_last) join();
  }

  __device__ void join() {
    constexpr int kAtOnce = kSize * kColumnTiles > 128 ? 4 : 8;
    for (int at = static_cast<int>(threadIdx.x); at < rows_ * (kSize / 4); at += kThreads) {
      const int row = at / (kSize / 4), d = at % (kSize / 4) * 4;
      this->write(now_, row, d,
                  this->template join_partials<kAtOnce>(x_.partial, x_.num_partials, row, d));
    }
    __syncthreads();  // what was found may be overwritten
  }

  enum class Ahead { kStart, kTile, kDone };

  Exchange<kRows, kWarps>& x_;
  std::byte* const all_rings_;
  unsigned block_ = 0, end_ = 0;  // its number, and the first tile of the next block's part
  Walk now_;                      // the piece that is computed
  Walk ahead_;                    // the piece of the tile that is fetched next
  int ahead_tile_ = 0;
  int64_t ahead_block_ = 0;
  Ahead ahead_state_ = Ahead::kStart;
  int stage_ = 0;                    // of the next tile to be computed
  int rows_ = 0;                     // of the unit; 0 when the next piece is of another one
  int first_piece_ = 0, count_ = 0;  // the unit's first piece here, and how many are done
};

/// Grid: a block for each unit, and as many as run at once.
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
  Kernel<T, kSize, kColumnTiles, Stored>(a, work, shares, exchange, shared).run(item);
}

}  // namespace millrace::ops::generation
