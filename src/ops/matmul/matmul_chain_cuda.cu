// Products behind each other in one launch, up to 8 rows: those of a layer between two attentions.
//
// One block a multiprocessor goes through all products. A warp copies the blocks' shares of the
// weights, in order, to a ring in shared memory; weights do not depend on anything, so it does not
// stop where one product ends and the next one waits for its x. Memory stays busy while eight warps
// finish a product, meet the other blocks, and fetch the new x.
//
//   copying warp    | o .... | gate, up ............................ | down ........ | next Q, K, V |
//   other warps        | x | o ... |meet| x | gate, up ............. |meet| x | down ...
//
// Blocks take units of 8 weight rows. They claim them one by one, in order, from a counter: some
// multiprocessors get more of the memory's bandwidth than others. A stage of the ring is 1024 of K
// of a unit, two pieces of 64 for each warp. Tensor cores multiply 16 rows with 8 columns; here the
// rows are those of both pieces of the weight, the columns those of both pieces of up to 4 rows of
// x, and the products of different pieces do not count. 16 bytes of a lane are eight neighbours of
// K, of the weight and of x alike. When a unit is through, one of four further warps (by turns)
// adds the eight sums, and writes the outputs: the bits do not depend on who does what.
//
// Blocks wait for each other: all of them must be on the GPU at once, one on each multiprocessor.
#include <algorithm>
#include <array>
#include <atomic>

#include "base/str.h"
#include "device/cuda/tensor_map.h"
#include "ops/common/hopper.cuh"
#include "ops/common/queue_number_cuda.h"
#include "ops/common/tensor_core_cuda.cuh"
#include "ops/matmul/matmul.h"
#include "ops/matmul/matmul_chain_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {
namespace {

using namespace chain;

constexpr const char* kChainName = "matmul_chain_cuda";
constexpr int kChainThreads = chain::kWarps * kWarp;
constexpr int kSumThreads = kMultiplying * kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;

/// Counters of a launch. All are zero between launches. A launch may begin to copy before the last
/// one of the queue has ended, but not before the one before that has: so two sets take turns.
struct ChainCounters {
  unsigned claimed;             // units
  unsigned done[kMaxProducts];  // units whose outputs are written
  unsigned through;             // blocks that need no counter any more
};
__device__ ChainCounters chain_counters[2 * kNumberedQueues];

/// Places in shared memory.
struct ChainMemory {
  static constexpr int kPieces = 512;   // ints: of the stages, then of the finishing warps' turns
  static constexpr int kSquares = 768;  // floats [8]
  static constexpr int kSums = 1024;    // float4 [4 turns, 8 multiplying warps, 32 lanes]
  static constexpr int kX = kSums + kFinishing * kMultiplying * kWarp * 16;

  uint32_t base;
  int x_bytes;
  unsigned char* bytes;

  __device__ uint32_t full(int slot) const { return base + slot * 8; }
  __device__ uint32_t empty(int slot) const { return full(kMaxStages + slot); }
  __device__ uint32_t started(int turn) const { return full(2 * kMaxStages + turn); }
  __device__ uint32_t summed(int turn) const { return started(kFinishing + turn); }
  __device__ uint32_t added(int turn) const { return summed(kFinishing + turn); }
  __device__ uint32_t x_there() const { return added(kFinishing); }
  __device__ uint32_t x() const { return base + kX; }
  __device__ uint32_t stage(int slot) const { return base + kX + x_bytes + slot * kStageBytes; }
  __device__ int& piece_of_stage(int slot) const {
    return reinterpret_cast<int*>(bytes + kPieces)[slot];
  }
  __device__ int& piece_of_turn(int turn) const { return piece_of_stage(kMaxStages + turn); }
  __device__ float* squares() const { return reinterpret_cast<float*>(bytes + kSquares); }
  /// Sums of a unit, of one multiplying warp.
  __device__ float4* sums(int turn, int warp) const {
    return reinterpret_cast<float4*>(bytes + kSums) + (turn * kMultiplying + warp) * kWarp;
  }
};

/// A place in a ring.
struct ChainPlace {
  int slot = 0, phase = 0;
  __device__ void advance(int stages) {
    if (++slot < stages) return;
    slot = 0;
    phase ^= 1;
  }
};

__device__ inline uint4 load_shared(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

/// One thread: claims units, and copies their weights, until there are none.
__device__ void copy_weights(const Chain& chain, const ChainMemory& memory) {
  const uint64_t policy = evict_first();
  unsigned* const claimed = &chain_counters[chain.counters].claimed;
  ChainPlace place, landed;
  int until_full = min(kInFlight, chain.stages);
  int product = 0, before = 0;  // units of the products before
  auto claim = static_cast<int>(atomicAdd(claimed, 1U));
  while (true) {
    const Product& p = chain.products[product];
    const int unit = claim - before;
    if (unit >= p.units) {
      before += p.units;
      if (++product < chain.count) continue;
      break;
    }
    const auto chunks = static_cast<int>(p.job.depth) / kChunk;
    // The next claim is on its way while the last two stages are copied.
    const int claims_at = max((chunks - 1) / p.chunks() - 1, 0) * p.chunks();
    for (int chunk = 0; chunk < chunks; chunk += p.chunks()) {
      hopper::wait_barrier(memory.empty(place.slot), place.phase ^ 1);
      if (--until_full < 0) {  // no more than kInFlight are under way
        hopper::wait_barrier(memory.full(landed.slot), landed.phase);
        landed.advance(chain.stages);
      }
      if (chunk == claims_at) claim = static_cast<int>(atomicAdd(claimed, 1U));
      memory.piece_of_stage(place.slot) = Piece{product, unit}.packed();
      hopper::arrive_expecting(memory.full(place.slot), kStageBytes);
      copy_stage(memory.stage(place.slot), p.weight, memory.full(place.slot), unit * kUnit, chunk,
                 policy);
      place.advance(chain.stages);
    }
  }
  hopper::wait_barrier(memory.empty(place.slot), place.phase ^ 1);
  memory.piece_of_stage(place.slot) = Piece::kNone;
  hopper::arrive(memory.full(place.slot));
}

/// The warps that multiply: all units of this block, each warp its part of every stage's K.
template <typename T>
class ChainProducts {
 public:
  __device__ ChainProducts(const Chain& chain, const ChainMemory& memory)
      : chain_(chain),
        memory_(memory),
        counters_(chain_counters[chain.counters]),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    device::wait_for_predecessor();
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
    counters_.through = 0;
  }

  __device__ static int x_stride(const MatmulJob& job) {
    return 2 * static_cast<int>(job.depth) + kXPadding;
  }
  __device__ unsigned char* x_at(const MatmulJob& job, int row) const {
    return memory_.bytes + ChainMemory::kX + row * x_stride(job);
  }

  /// x, or its norm, is in shared memory after it.
  __device__ void begin_product(int i) {
    const Product& product = chain_.products[i];
    meet();  // nobody reads the last x any more
    if (product.norm.weight != nullptr) stage_norm_weight(product);
    if (threadIdx.x == 0) {
      if (i > 0) wait_for_units(i - 1);
      copy_x(product.job);
    }
    hopper::wait_barrier(memory_.x_there(), begun_++ % 2);
    if (product.norm.weight != nullptr) norm_x(product);
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

  /// Threads of a row are 256 / rows, or fewer.
  __device__ void norm_x(const Product& product) const {
    const auto rows = static_cast<int>(product.job.rows);
    const auto depth = static_cast<int>(product.job.depth);
    const int threads = kSumThreads / (rows == 1 ? 1 : rows == 2 ? 2 : kMaxRows);
    const int row = static_cast<int>(threadIdx.x) / threads;
    const int first = static_cast<int>(threadIdx.x) % threads * kPackOf<T>;
    T* x = reinterpret_cast<T*>(x_at(product.job, row));
    float squares = 0;
    if (row < rows) {
#pragma unroll 4
      for (int k = first; k < depth; k += threads * kPackOf<T>)
        squares += sum_of_squares(x + k);
    }
    float* const sums = memory_.squares();
    squares = warp_sum(squares);
    if (lane_ == 0) sums[warp_] = squares;
    wait_for_copies<0>();
    meet();
    if (row < rows) {
      float total = 0;
      for (int warp = row * threads / kWarp; warp < (row + 1) * threads / kWarp; ++warp)
        total += sums[warp];
      const float scale = 1.0F / sqrtf(total / static_cast<float>(depth) + product.norm.eps);
      const unsigned char* weights = x_at(product.job, rows);
#pragma unroll 4
      for (int k = first; k < depth; k += threads * kPackOf<T>) {
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

  /// Its first stage is there. Sums are, in lane 4 g + t: of weight row g, columns 2 t and 2 t + 1,
  /// of the first pieces of K (gated: of the gate); then those of the second ones (of up). Columns
  /// are tokens 0 to 3 of the first pieces, then of the second ones (gated: nothing).
  __device__ void multiply_unit(const MatmulJob& job) {
    const UnitReader reader(job, memory_, warp_, lane_);
    float even[4] = {}, odd[4] = {};
    const int step = reader.step;
#pragma unroll 1
    for (int k = 0;;) {
      // Two stages at once, if there are two: their latencies overlap.
      const ChainPlace first = place_;
      const Fragments a = reader.read(memory_.stage(first.slot), k);
      place_.advance(chain_.stages);
      k += step;
      if (k >= reader.depth) {
        multiply(a, even);
        release(first);
        break;
      }
      const ChainPlace second = place_;
      hopper::wait_barrier(memory_.full(second.slot), second.phase);
      const Fragments b = reader.read(memory_.stage(second.slot), k);
      place_.advance(chain_.stages);
      k += step;
      multiply(a, even);
      release(first);
      multiply(b, odd);
      release(second);
      if (k >= reader.depth) break;
      hopper::wait_barrier(memory_.full(place_.slot), place_.phase);
    }
    hand_over(make_float4(even[0] + odd[0], even[1] + odd[1], even[2] + odd[2], even[3] + odd[3]));
  }

  __device__ void release(const ChainPlace& place) const {
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.empty(place.slot));
  }

  /// Of 64 elements of K, or two times 64: 16 rows of the weight, 8 columns.
  struct Fragments {
    uint4 top[2], bottom[2], column[2];
  };

  /// Where this lane's part of a stage and of x lies.
  struct UnitReader {
    int depth, step;  // of K; in a stage

    __device__ UnitReader(const MatmulJob& job, const ChainMemory& memory, int warp, int lane)
        : depth(static_cast<int>(job.depth)) {
      const int group = lane / 4, part = lane % 4;
      const int token = group % kMaxRows;
      has_token_ = token < static_cast<int>(job.rows) && (!job.gated || group < kMaxRows);
      is_odd_ = group % 2 != 0;
      const int row_bytes = job.gated ? kStageBytes / 16 : kStageBytes / 8;
      step = row_bytes / 2;
      bottom_ = job.gated ? kStageBytes / 2 : row_bytes / 2;
      weight_ = group * row_bytes + warp * hopper::kSwizzledRow +
                16 * ((is_odd_ ? part + 4 : part) ^ warp);
      first_k_ = kChunk * warp;
      column_k_ = first_k_ + (job.gated ? 0 : group / kMaxRows * (step / 2));
      x_ = memory.x() + (has_token_ ? token : 0) * x_stride(job) + 16 * part + 2 * column_k_;
    }

    /// Lanes of an odd group read the second half of their 64 elements first: rows that are read at
    /// once would lie in the same banks.
    __device__ Fragments read(uint32_t stage, int k) const {
      Fragments f;
      if (k + first_k_ >= depth) {  // copies leave nothing but zeros there, x may be anything
#pragma unroll
        for (int j = 0; j < 2; ++j)
          f.top[j] = f.bottom[j] = f.column[j] = make_uint4(0, 0, 0, 0);
        return f;
      }
      const bool has_column = has_token_ && k + column_k_ < depth;
      uint4 top[2], bottom[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const uint32_t at = (stage + weight_) ^ (64 * j);
        top[j] = load_shared(at);
        bottom[j] = load_shared(at + bottom_);
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
    bool has_token_, is_odd_;
    int bottom_, first_k_, column_k_;
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

  __device__ void hand_over(const float4& sums) {
    const int turn = units_ % kFinishing;
    // Thread 0 has waited for it in start_unit(), but the other warps have not met it since.
    if (warp_ > 0) hopper::wait_barrier(memory_.added(turn), units_ / kFinishing % 2 ^ 1);
    memory_.sums(turn, warp_)[lane_] = sums;
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.summed(turn));
    ++units_;
  }

  const Chain& chain_;
  const ChainMemory& memory_;
  ChainCounters& counters_;
  int warp_, lane_;
  ChainPlace place_;
  int units_ = 0, begun_ = 0;  // of this block; products
};

/// One of the warps that add what the others have multiplied, and write it.
class ChainOutputs {
 public:
  __device__ ChainOutputs(const Chain& chain, const ChainMemory& memory, int turn)
      : chain_(chain),
        memory_(memory),
        counters_(chain_counters[chain.counters]),
        turn_(turn),
        lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ void run() {
    for (int parity = 0;; parity ^= 1) {
      hopper::wait_barrier(memory_.started(turn_), parity);
      const int packed = memory_.piece_of_turn(turn_);
      if (packed == Piece::kNone) return;
      finish_unit(Piece::of(packed), parity);
    }
  }

 private:
  __device__ void finish_unit(const Piece& piece, int parity) {
    const MatmulJob& job = chain_.products[piece.product].job;
    EpilogueBits bits[2];
    load_bits(job, piece.unit, bits);  // a residual is there when x is
    hopper::wait_barrier(memory_.summed(turn_), parity);
    float4 total = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int warp = 0; warp < kMultiplying; ++warp) {
      const float4 more = memory_.sums(turn_, warp)[lane_];
      total.x += more.x;
      total.y += more.y;
      total.z += more.z;
      total.w += more.w;
    }
    __syncwarp();
    if (lane_ == 0) hopper::arrive(memory_.added(turn_));
    // Second pieces of tokens 2 t and 2 t + 1 are the columns of the lane after the next.
    const float more[2] = {__shfl_down_sync(kAllLanes, total.z, 2),
                           __shfl_down_sync(kAllLanes, total.w, 2)};
    if (job.gated) {
      write_gated(job, piece.unit, bits, total);
    } else {
      write(job, piece.unit, bits, {total.x + more[0], total.y + more[1]});
    }
    if (piece.product + 1 == chain_.count) return;
    __syncwarp();
    if (lane_ == 0) count_up(&counters_.done[piece.product]);
  }

  /// Where sum i of this lane goes: lanes 4 g and 4 g + 1 have those of weight row g.
  __device__ int token_of(int i) const { return lane_ % 4 * 2 + i; }
  __device__ bool has_token(const MatmulJob& job, int i) const { return token_of(i) < job.rows; }

  __device__ int64_t col_of(int unit) const { return int64_t{unit} * kUnit + lane_ / 4; }

  /// Of tokens 2 t and 2 t + 1; gated: and of up's.
  __device__ void load_bits(const MatmulJob& job, int unit, EpilogueBits (&bits)[2]) const {
    const int64_t col = col_of(unit);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (job.bias != nullptr) {
        bits[i].bias =
            ops::load_bits(job.bias, job.bias_type, job.gated ? col + i * job.cols : col);
      }
      if (job.residual == nullptr || !has_token(job, i)) continue;
      // Another block may have written it in this launch.
      const int64_t at = token_of(i) * job.cols + col;
      bits[i].residual = __ldcg(static_cast<const unsigned short*>(job.residual) + at);
    }
  }

  __device__ void write(const MatmulJob& job, int unit, const EpilogueBits (&bits)[2],
                        const float (&sums)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!has_token(job, i)) continue;
      store_out(job, token_of(i), col_of(unit),
                finish_called(job, bits[i].bias, bits[i].residual, sums[i]));
    }
  }

  __device__ void write_gated(const MatmulJob& job, int unit, const EpilogueBits (&bias)[2],
                              const float4& total) const {
    const float sums[4] = {total.x, total.y, total.z, total.w};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (!has_token(job, i)) continue;
      const float gate = sums[i] + bits_to_float(bias[0].bias, job.bias_type);
      const float up = sums[i + 2] + bits_to_float(bias[1].bias, job.bias_type);
      store_out(job, token_of(i), col_of(unit), activate_called(job.activation, gate) * up);
    }
  }

  __device__ __noinline__ static float finish_called(const MatmulJob& job, uint32_t bias,
                                                     uint32_t residual, float sum) {
    return finish(job, {bias, residual}, sum);
  }

  const Chain& chain_;
  const ChainMemory& memory_;
  ChainCounters& counters_;
  int turn_, lane_;
};

template <typename T>
__global__ void __launch_bounds__(kChainThreads, 1)
    matmul_chain_kernel(const __grid_constant__ Chain chain) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  device::let_successor_start();
  const ChainMemory memory{hopper::address_in_shared(bytes), chain.x_bytes, bytes};
  if (threadIdx.x == kSumThreads) {
    for (int i = 0; i < chain.stages; ++i) {
      hopper::init_barrier(memory.full(i), 1);
      hopper::init_barrier(memory.empty(i), kMultiplying);
    }
    for (int turn = 0; turn < kFinishing; ++turn) {
      hopper::init_barrier(memory.started(turn), 1);
      hopper::init_barrier(memory.summed(turn), kMultiplying);
      hopper::init_barrier(memory.added(turn), 1);
    }
    hopper::init_barrier(memory.x_there(), 1);
    hopper::publish_barriers();
  }
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp < kMultiplying) {
    ChainProducts<T>(chain, memory).run();
  } else if (warp > kMultiplying) {
    ChainOutputs(chain, memory, warp - kMultiplying - 1).run();
  } else if (threadIdx.x % kWarp == 0) {
    copy_weights(chain, memory);
  }
}

/// More than half of a multiprocessor's, so that no two blocks share one.
constexpr int kChainShared = 224 << 10;
constexpr int kMostX = 120 << 10;
/// Weight rows have numbers of 24 bits.
constexpr int64_t kMostUnits = (1 << 24) - 1;

/// Of x and the norm's weight in shared memory.
int64_t x_bytes_of(const Launch& launch) {
  const int64_t rows = launch.in[0].dim(0), depth = launch.in[0].dim(1);
  const bool normed = launch.attrs<Matmul>().normed();
  const int64_t norm = normed ? depth * ir::dtype_size(launch.in.back().dtype) : 0;
  return rows * (2 * depth + kXPadding) + norm;
}

CUtensorMap chain_map(const Product& product) {
  const MatmulJob& job = product.job;
  const int64_t halves = job.gated ? 2 : 1;
  return device::make_tensor_map(job.weight, {kChunk, job.depth / kChunk, job.cols, halves},
                                 {kChunk, job.depth, job.cols * job.depth},
                                 {kChunk, product.chunks(), kUnit, halves},
                                 device::Swizzle::k128Bytes);
}

/// The counters of the queue's next launch.
int next_counters(const device::Queue& queue) {
  static std::array<std::atomic<unsigned>, kNumberedQueues> launches{};
  const int number = queue_number(queue);
  return 2 * number + static_cast<int>(launches[static_cast<size_t>(number)].fetch_add(1) % 2);
}

template <typename T>
void run_chain(const device::Queue& queue, const Chain& chain) {
  static const bool allowed =
      device::allow_shared(kChainName, matmul_chain_kernel<T>, kChainShared);
  CHECK(allowed);
  device::launch_placed(kChainName, queue, {.all_at_once = true},
                        dim3(static_cast<unsigned>(device::multiprocessors())), dim3(kChainThreads),
                        kChainShared, matmul_chain_kernel<T>, chain);
}

}  // namespace

std::string matmul_chain_cuda_why_not(const Launch& launch, const device::Properties& properties) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  const Tensor& weight = launch.in[1];
  const int64_t rows = launch.in[0].dim(0), depth = weight.dim(1);
  if (rows > kMaxRows) return str("more than ", kMaxRows, " rows");
  if (depth % kChunk != 0) return str("K is not a multiple of ", kChunk);
  const int64_t cols = launch.out[0].dim(1);
  if (cols % kUnit != 0) return str("N is not a multiple of ", kUnit);
  if (cols / kUnit > kMostUnits) return "N is too large";
  if (x_bytes_of(launch) > kMostX) return "x is too large";
  return mma_cuda_why_not(launch);
}

void matmul_chain_cuda(std::span<const Launch> launches) {
  Chain chain;
  int64_t x_bytes = 0;
  for (const Launch& launch : launches) {
    Product& product = chain.products[chain.count++];
    product.job = matmul_job(launch);
    product.norm = matmul_norm(launch);
    if (product.job.rows == 0) return;  // of all of them
    product.units = static_cast<int>(product.job.cols / kUnit);
    product.weight = chain_map(product);
    x_bytes = std::max(x_bytes, x_bytes_of(launch));
  }
  constexpr int64_t kSwizzleGroup = 1024;
  chain.x_bytes = static_cast<int>((x_bytes + kSwizzleGroup - 1) / kSwizzleGroup * kSwizzleGroup);
  chain.stages =
      std::min(kMaxStages, (kChainShared - ChainMemory::kX - chain.x_bytes) / kStageBytes);
  chain.counters = next_counters(*launches[0].queue);
  if (chain.products[0].job.x_type == ir::DType::kBF16) {
    run_chain<__nv_bfloat16>(*launches[0].queue, chain);
  } else {
    run_chain<__half>(*launches[0].queue, chain);
  }
}

}  // namespace millrace::ops
