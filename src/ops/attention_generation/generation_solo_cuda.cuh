// A warp that works by itself: its share is a run of pieces, and it goes through the four quarters
// of a piece one after the other. What warps of one block would add up when they meet it adds up in
// registers, in the same order. For .cu files.
#pragma once

#include "ops/attention_generation/generation_tiles_cuda.cuh"

namespace millrace::ops::generation {

/// Numbers of partial results, in the order of pieces, for each warp.
template <int kWarps>
struct SoloExchange {
  int partial[kWarps][kMaxPieces];
  int num_partials[kWarps];
};

/// Sums of 8 query rows as the matrix instructions leave them: a thread has columns lane % 4 * 2
/// and the one after, elements by Tiles::element(). Add up as Part does.
template <int kSize>
struct Sums {
  float largest[2], total[2];
  float sum[kSize / 16][4];

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      largest[i] = -INFINITY;
      total[i] = 0;
    }
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sum[d][i] = 0;
    }
  }

  __device__ void add(const float (&largest_of_next)[2], const float (&total_of_next)[2],
                      const float (&sum_of_next)[kSize / 16][4]) {
    float a[2], b[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float both = fmaxf(largest[i], largest_of_next[i]);
      a[i] = weight_of(largest[i], both);
      b[i] = weight_of(largest_of_next[i], both);
      largest[i] = both;
      total[i] = fmaf(total[i], a[i], __fmul_rn(total_of_next[i], b[i]));
    }
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        sum[d][i] = fmaf(sum[d][i], a[i % 2], __fmul_rn(sum_of_next[d][i], b[i % 2]));
    }
  }
};

template <typename T, int kSize, typename Stored>
class Solo : private Tiles<T, kSize, 1, Stored> {
 public:
  using Base = Tiles<T, kSize, 1, Stored>;
  using typename Base::S;

  __device__ Solo(const AttentionArgs& a, const Work& work, const Shares& shares,
                  SoloExchange<S::kWarps>& exchange, std::byte* shared)
      : Base(a, work, shares, shared),
        x_(exchange),
        queries_(reinterpret_cast<uint16_t*>(shared + S::kTileBytes) +
                 warp() * work.partial_rows * S::kQueryStride) {}

  /// REQUIRES: the item has work.
  __device__ void run(const WorkItem& item) {
    sharer_ = item.sharer;
    end_ = item.end;
    now_ = item.walk();
    attend();
    wait_for_copies<0>();
  }

 private:
  using Base::a_, Base::w_, Base::shares_, Base::lane, Base::warp;
  using Base::largest_, Base::total_, Base::sums_;

  /// All pieces of this warp, tile by tile; what is read before the kernel before has ended: see
  /// Kernel::attend().
  __device__ void attend() {
    ahead_ = now_;
    ahead_tile_ = ahead_.piece_begin();
    look_up_ahead();
    Sums<kSize> unit, piece;
    bool waited = false;
    int tile = 0, quarter = 0, stage = 0;
    for (int filled = 0;;) {
      if (!waited && has_ahead_ && !this->is_old(ahead_.plan, ahead_tile_)) {
        device::wait_for_predecessor();
        waited = true;
      }
      fetch(stage);
      if (filled < S::kStages) {
        stage = ++filled;
        if (filled < S::kStages) continue;
        stage = 0;
      } else {
        stage = stage + 1 == S::kStages ? 0 : stage + 1;
      }
      if (!waited) device::wait_for_predecessor();
      waited = true;
      if (rows_ == 0) {
        unit.clear();
        enter_unit();
      }
      if (tile == 0) {
        tile = now_.piece_begin() + quarter;
        if (quarter == 0) piece.clear();
        this->start_sums();
      }
      wait_for_copies<S::kStages - 1>();
      __syncwarp();
      this->append_keys(stage, now_, tile);
      this->add_stage(stage, now_.plan, tile);
      tile += kQuarters;
      if (tile < now_.piece_end()) continue;
      add_quarter(piece);
      tile = 0;
      ++quarter;
      if (quarter < kQuarters && now_.piece_begin() + quarter < now_.piece_end()) continue;
      quarter = 0;
      if (!finish_piece(piece, unit)) return;
    }
  }

  __device__ void look_up_ahead() { ahead_block_ = this->block_of(ahead_, ahead_tile_); }

  /// Starts to copy the next tile, and finds the one after it.
  __device__ void fetch(int stage) {
    if (has_ahead_) {
      this->fetch_tile(stage, ahead_, ahead_tile_, ahead_block_);
      ahead_tile_ += kQuarters;
      if (ahead_tile_ >= ahead_.piece_end()) {
        ++ahead_quarter_;
        ahead_tile_ = ahead_.piece_begin() + ahead_quarter_;
        if (ahead_quarter_ == kQuarters || ahead_tile_ >= ahead_.piece_end()) {
          ahead_quarter_ = 0;
          if (++ahead_.piece == ahead_.plan.pieces)
            next_unit(w_.division, w_.lengths, end_, &ahead_);
          has_ahead_ = ahead_.start() < end_;
          ahead_tile_ = ahead_.piece_begin();
        }
      }
      if (has_ahead_) look_up_ahead();
    }
    commit_copies();
  }

  __device__ void enter_unit() {
    first_piece_ = now_.piece;
    count_ = 0;
    rows_ = this->count_rows(now_);
    __syncwarp();  // the queries before have been read
    this->rotate_queries(now_, rows_, lane(), kWarp, queries_);
    __syncwarp();
    this->load_queries(now_, rows_, queries_);
  }

  __device__ void add_quarter(Sums<kSize>& piece) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int step = 4; step < kWarp; step *= 2)
        total_[0][i] += __shfl_xor_sync(kAll, total_[0][i], step);
    }
    this->end_sums();
    piece.add(largest_[0], total_[0], sums_[0]);
  }

  /// Goes on to the next piece; false when there is none.
  __device__ bool finish_piece(const Sums<kSize>& piece, Sums<kSize>& unit) {
    if (first_piece_ == 0) {
      unit.add(piece.largest, piece.total, piece.sum);
    } else {
      store(count_, piece);
    }
    ++count_;
    ++now_.piece;
    if (now_.piece < now_.plan.pieces && now_.start() < end_) return true;
    if (count_ == now_.plan.pieces) {
      write_unit(unit);
    } else {
      // Pieces in the middle of a unit lie in the slots before.
      if (first_piece_ == 0) store(w_.partial_slots - 1, unit);
      announce();
    }
    rows_ = 0;
    if (now_.piece == now_.plan.pieces) next_unit(w_.division, w_.lengths, end_, &now_);
    return now_.start() < end_;
  }

  __device__ void store(int slot, const Sums<kSize>& sums) const {
    float* to = this->partial(this->partial_number(sharer_, slot));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane() % 4 * 2 + i % 2;
      if (row >= rows_) continue;
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d)
        to[row * kSize + this->element(d, i)] = sums.sum[d][i];
      if (i < 2 && lane() < 4) {
        auto* stats = reinterpret_cast<float2*>(to + w_.partial_rows * kSize) + row;
        *stats = {sums.largest[i], sums.total[i]};
      }
    }
  }

  __device__ void write_unit(const Sums<kSize>& unit) const {
    float factor[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = min(lane() % 4 * 2 + i, rows_ - 1);
      factor[i] = 1 / this->total_of(this->head_row(now_, row), unit.largest[i], unit.total[i]);
    }
    const int row = lane() / 4;
    T* to = static_cast<T*>(a_.out) + this->head_row(now_, min(row, rows_ - 1)) * kSize;
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      uint32_t pairs[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        pairs[half] = transposed(this->pack_result(unit.sum[d][half * 2] * factor[0],
                                                   unit.sum[d][half * 2 + 1] * factor[1]));
      }
      if (row < rows_) write_pairs(pairs, to + d * 16);
    }
  }

  /// Two pairs of a row's 16 elements: as Tiles::element() says.
  __device__ static void write_pairs(const uint32_t (&pairs)[2], T* to) {
    if constexpr (Base::kWidens) {  // 4 (lane % 4) + 0, 2, then + 1, 3
      *reinterpret_cast<uint2*>(to + lane() % 4 * 4) = {__byte_perm(pairs[0], pairs[1], 0x5410),
                                                        __byte_perm(pairs[0], pairs[1], 0x7632)};
    } else {
      *reinterpret_cast<uint32_t*>(to + lane() % 4 * 2) = pairs[0];
      *reinterpret_cast<uint32_t*>(to + lane() % 4 * 2 + 8) = pairs[1];
    }
  }

  /// Some pieces of the unit are stored; the warp that stores the last ones joins them all.
  __device__ void announce() {
    __syncwarp();
    const unsigned home = shares_.owner(now_.unit_start);
    int is_last = 0;
    if (lane() == 0) is_last = this->count_stored(now_, home, count_) ? 1 : 0;
    int* partials = x_.partial[warp()];
    this->find_partials(now_, home, partials, &x_.num_partials[warp()]);
    is_last = __shfl_sync(kAll, is_last, 0);
    __syncwarp();
    if (is_last == 0) return;
    const int count = x_.num_partials[warp()];
    for (int at = lane(); at < rows_ * (kSize / 4); at += kWarp) {
      const int row = at / (kSize / 4), d = at % (kSize / 4) * 4;
      this->write(now_, row, d, this->template join_partials<8>(partials, count, row, d));
    }
    __syncwarp();  // what was found may be overwritten
  }

  SoloExchange<S::kWarps>& x_;
  uint16_t* const queries_;        // this warp's
  unsigned sharer_ = 0, end_ = 0;  // its number, and the first tile of the next one's part
  Walk now_;                       // the piece that is computed
  Walk ahead_;                     // the piece of the tile that is fetched next
  int ahead_tile_ = 0, ahead_quarter_ = 0;
  int64_t ahead_block_ = 0;
  bool has_ahead_ = true;
  int rows_ = 0;                     // of the unit; 0 when the next piece is of another one
  int first_piece_ = 0, count_ = 0;  // the unit's first piece here, and how many are done
};

}  // namespace millrace::ops::generation
