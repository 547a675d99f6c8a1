// The multiplying warps of matmul_chain_cuda.
#pragma once

#include "ops/matmul/matmul_chain_cuda.cuh"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops::chain {

/// The warps that multiply: all units of this block, each warp its part of every stage's K.
template <typename T>
class Products {
 public:
  __device__ Products(const Chain& chain, const Memory& memory, Counters& counters,
                      Exchange& exchange)
      : chain_(chain),
        memory_(memory),
        counters_(counters),
        exchange_(exchange),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    device::wait_for_predecessor();
    handed_ = exchange_.of_launch(0);
    int product = -1;
    while (true) {
      hopper::wait_barrier(memory_.full(place_.slot), place_.phase);
      const int packed = memory_.piece_of_stage(place_.slot);
      if (packed == Piece::kNone) break;
      const Piece piece = Piece::of(packed);
      if (piece.product != product) begin_product(piece.product);
      product = piece.product;
      start_unit(packed);
      multiply_unit(chain_.products[product].job);
    }
    for (int turn = 0; turn < kFinishing; ++turn, ++units_)
      start_unit(Piece::kNone);
    if (warp_ == 0) hopper::sync_named(kTurnRead, kTurnReaders);
    if (threadIdx.x == 0) leave();
  }

 private:
  __device__ static void meet() { hopper::sync_named(1, kSumThreads); }

  /// The last block clears all counts for a later launch.
  __device__ void leave() const {
    if (atomicAdd(&counters_.through, 1U) + 1 < gridDim.x) return;
    for (int i = 0; i < kMaxProducts; ++i)
      counters_.done[i] = 0;
    counters_.claimed = 0;
    if (chain_.exchanges) exchange_.turn += 1;
    counters_.through = 0;
  }

  __device__ static int x_stride(const MatmulJob& job) {
    return 2 * static_cast<int>(job.depth) + kXPadding;
  }
  __device__ unsigned char* x_at(const MatmulJob& job, int row) const {
    return memory_.bytes + Memory::kX + row * x_stride(job);
  }

  /// x, or its norm, is in shared memory after it.
  __device__ void begin_product(int i) {
    const Product& product = chain_.products[i];
    meet();  // nobody reads the last x any more
    if (product.norm.weight != nullptr) stage_norm_weight(product);
    if (i > 0 && chain_.products[i - 1].handed >= 0) {
      take_x(product.job, handed_ + chain_.products[i - 1].handed);
    } else {
      if (threadIdx.x == 0) {
        if (i > 0) wait_for_units(i - 1);
        copy_x(product.job);
      }
      hopper::wait_barrier(memory_.x_there(), copied_++ % 2);
    }
    if (product.norm.weight != nullptr) {
      norm_x(product);
    } else {
      meet();
    }
  }

  /// Threads of a row are 256 / rows, or fewer: each has every so many-th eight elements of it.
  struct RowShare {
    int row, first, step;
    __device__ explicit RowShare(int rows) {
      const int threads = kSumThreads / (rows == 1 ? 1 : rows == 2 ? 2 : kMaxRows);
      row = static_cast<int>(threadIdx.x) / threads;
      first = static_cast<int>(threadIdx.x) % threads * kPackOf<T>;
      step = threads * kPackOf<T>;
    }
  };

  /// x as other blocks hand it over, waiting for it. A thread gets what is its own in norm_x().
  __device__ void take_x(const MatmulJob& job, const uint16_t* from) const {
    constexpr int kAtOnce = 4;
    const auto rows = static_cast<int>(job.rows), depth = static_cast<int>(job.depth);
    const RowShare share(rows);
    if (share.row >= rows) return;
    unsigned char* to = x_at(job, share.row);
    from += share.row * depth;
#pragma unroll 1
    for (int k = share.first; k < depth; k += kAtOnce * share.step) {
      uint4 bits[kAtOnce];
      bool all = false;
      while (!all) {
        all = true;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          const int at = k + i * share.step;
          if (at < depth && !take(from + at, bits[i])) all = false;
        }
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int at = k + i * share.step;
        if (at < depth) *reinterpret_cast<uint4*>(to + 2 * at) = bits[i];
      }
    }
  }

  /// It is constant: it can come while the product before is under way.
  __device__ void stage_norm_weight(const Product& product) const {
    const int bytes =
        static_cast<int>(product.job.depth) * (product.norm.type == ir::DType::kF32 ? 4 : 2);
    const auto* from = static_cast<const unsigned char*>(product.norm.weight);
    unsigned char* to = x_at(product.job, static_cast<int>(product.job.rows));
    for (int i = static_cast<int>(threadIdx.x) * 16; i < bytes; i += kSumThreads * 16)
      copy_async(shared_address_of(to + i), from + i);
    commit_copies();
  }

  /// Until all blocks have written the outputs of this product.
  __device__ void wait_for_units(int i) const {
    const auto units = static_cast<unsigned>(chain_.products[i].units);
    while (read_count(&counters_.done[i]) < units) {
    }
  }

  __device__ void copy_x(const MatmulJob& job) const {
    const auto rows = static_cast<int>(job.rows);
    const int bytes = 2 * static_cast<int>(job.depth);
    order_before_copies();
    hopper::arrive_expecting(memory_.x_there(), rows * bytes);
    for (int row = 0; row < rows; ++row) {
      copy_bytes(memory_.x() + row * x_stride(job), static_cast<const T*>(job.x) + row * job.depth,
                 bytes, memory_.x_there());
    }
  }

  __device__ void norm_x(const Product& product) const {
    const auto rows = static_cast<int>(product.job.rows);
    const auto depth = static_cast<int>(product.job.depth);
    const RowShare share(rows);
    T* x = reinterpret_cast<T*>(x_at(product.job, share.row));
    float squares = 0;
    if (share.row < rows) {
#pragma unroll 4
      for (int k = share.first; k < depth; k += share.step)
        squares += sum_of_squares(x + k);
    }
    float* const sums = memory_.squares();
    squares = warp_sum(squares);
    if (lane_ == 0) sums[warp_] = squares;
    wait_for_copies<0>();
    meet();
    if (share.row < rows) {
      const int warps = share.step / kPackOf<T> / kWarp;
      float total = 0;
      for (int warp = share.row * warps; warp < (share.row + 1) * warps; ++warp)
        total += sums[warp];
      const float scale = 1.0F / sqrtf(total / static_cast<float>(depth) + product.norm.eps);
      const unsigned char* weights = x_at(product.job, rows);
#pragma unroll 4
      for (int k = share.first; k < depth; k += share.step) {
        float values[kPackOf<T>], weight[kPackOf<T>];
        load_floats<kPackOf<T>>(x + k, values);
        load_eight(weights, product.norm.type, k, weight);
        Pack<T, kPackOf<T>> normed;
#pragma unroll
        for (int i = 0; i < kPackOf<T>; ++i)
          normed.at[i] = from_float<T>(values[i] * scale * (weight[i] + product.norm.offset));
        *reinterpret_cast<Pack<T, kPackOf<T>>*>(x + k) = normed;
      }
    }
    meet();
  }

  __device__ static float sum_of_squares(const T* at) {
    float x[kPackOf<T>];
    load_floats<kPackOf<T>>(at, x);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPackOf<T>; ++i)
      sum += x[i] * x[i];
    return sum;
  }

  /// Tells the finishing warp whose turn it is.
  __device__ void start_unit(int packed) const {
    if (threadIdx.x == 0) {
      const int turn = units_ % kFinishing;
      hopper::wait_barrier(memory_.added(turn), units_ / kFinishing % 2 ^ 1);
      memory_.piece_of_turn(turn) = packed;
      hopper::arrive(memory_.started(turn));
    }
    __syncwarp();
  }

  /// Its first stage is there. Two stages at once, if there are two, so that their latencies
  /// overlap: two parts of K, or the gate's and up's of one.
  __device__ void multiply_unit(const MatmulJob& job) {
    const StageReader reader(job, memory_, warp_, lane_);
    const auto depth = static_cast<int>(job.depth);
    float even[4] = {}, odd[4] = {};
#pragma unroll 1
    for (int k = 0;;) {
      const Place first = place_;
      const Fragments a = reader.read(memory_.stage(first.slot), k);
      place_.advance(chain_.stages);
      if (!job.gated) k += kStageDepth;
      if (k >= depth) {
        multiply(a, even);
        release(first);
        break;
      }
      const Place second = place_;
      hopper::wait_barrier(memory_.full(second.slot), second.phase);
      const Fragments b = reader.read(memory_.stage(second.slot), k);
      place_.advance(chain_.stages);
      k += kStageDepth;
      multiply(a, even);
      release(first);
      multiply(b, odd);
      release(second);
      if (k >= depth) break;
      hopper::wait_barrier(memory_.full(place_.slot), place_.phase);
    }
    if (job.gated) {
      const float2 gate = both_pieces(even), up = both_pieces(odd);
      pass_on(make_float4(gate.x, gate.y, up.x, up.y));
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        even[i] += odd[i];
      const float2 sums = both_pieces(even);
      pass_on(make_float4(sums.x, sums.y, 0, 0));
    }
  }

  /// Sums are, in lane 4 g + t: of weight row g, columns 2 t and 2 t + 1, of the first pieces of K;
  /// then those of the second ones. Columns are tokens 0 to 3 of the first pieces, then of the
  /// second ones. Lanes 4 g and 4 g + 1 get the sums of row g, tokens 2 t and 2 t + 1.
  __device__ static float2 both_pieces(const float (&sums)[4]) {
    return make_float2(sums[0] + __shfl_down_sync(kAllLanes, sums[2], 2),
                       sums[1] + __shfl_down_sync(kAllLanes, sums[3], 2));
  }

  __device__ void release(const Place& place) const {
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.empty(place.slot));
  }

  /// Of two times 64 elements of K: 8 rows of the weight, 4 of x.
  struct Fragments {
    uint4 top[2], bottom[2], column[2];
  };

  /// Where this lane's part of a stage and of x lies.
  struct StageReader {
    __device__ StageReader(const MatmulJob& job, const Memory& memory, int warp, int lane)
        : depth_(static_cast<int>(job.depth)) {
      const int group = lane / 4, part = lane % 4;
      const int token = group % kMaxRows;
      has_token_ = token < static_cast<int>(job.rows);
      is_odd_ = group % 2 != 0;
      weight_ = group * kRowBytes + warp * hopper::kSwizzledRow +
                16 * ((is_odd_ ? part + 4 : part) ^ warp);
      first_k_ = kChunk * warp;
      column_k_ = first_k_ + group / kMaxRows * (kStageDepth / 2);
      x_ = memory.x() + (has_token_ ? token : 0) * x_stride(job) + 16 * part + 2 * column_k_;
    }

    /// Lanes of an odd group read the second half of their 64 elements first: rows that are read at
    /// once would lie in the same banks.
    __device__ Fragments read(uint32_t stage, int k) const {
      Fragments f;
      if (k + first_k_ >= depth_) {  // copies leave nothing but zeros there, x may be anything
#pragma unroll
        for (int j = 0; j < 2; ++j)
          f.top[j] = f.bottom[j] = f.column[j] = make_uint4(0, 0, 0, 0);
        return f;
      }
      const bool has_column = has_token_ && k + column_k_ < depth_;
      uint4 top[2], bottom[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint32_t at = (stage + weight_) ^ (64 * j);
        top[j] = load_shared(at);
        bottom[j] = load_shared(at + kRowBytes / 2);
        f.column[j] = make_uint4(0, 0, 0, 0);
        if (has_column) f.column[j] = load_shared(x_ + 2 * k + 64 * j);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        f.top[j] = is_odd_ ? top[1 - j] : top[j];
        f.bottom[j] = is_odd_ ? bottom[1 - j] : bottom[j];
      }
      return f;
    }

   private:
    static constexpr int kRowBytes = 2 * kStageDepth;
    int depth_, first_k_, column_k_;
    bool has_token_, is_odd_;
    uint32_t weight_, x_;
  };

  __device__ static void multiply(const Fragments& f, float (&sums)[4]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      multiply_add<T>(sums, {f.top[j].x, f.bottom[j].x, f.top[j].y, f.bottom[j].y},
                      {f.column[j].x, f.column[j].y});
      multiply_add<T>(sums, {f.top[j].z, f.bottom[j].z, f.top[j].w, f.bottom[j].w},
                      {f.column[j].z, f.column[j].w});
    }
  }

  __device__ void pass_on(const float4& sums) {
    const int turn = units_ % kFinishing;
    // Thread 0 has waited for it in start_unit(), but the other warps have not met it since.
    if (warp_ > 0) hopper::wait_barrier(memory_.added(turn), units_ / kFinishing % 2 ^ 1);
    memory_.sums(turn, warp_)[lane_] = sums;
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.summed(turn));
    ++units_;
  }

  const Chain& chain_;
  const Memory& memory_;
  Counters& counters_;
  Exchange& exchange_;
  const uint16_t* handed_ = nullptr;  // what this launch exchanges
  int warp_, lane_;
  Place place_;
  int units_ = 0, copied_ = 0;  // of this block; x of products, by the copy engine
};

}  // namespace millrace::ops::chain
