// Up to 8 rows on tensor cores at the speed of memory, beside other kernels: this one takes at most
// half of a multiprocessor. So its blocks are there, and fetch the weight, while the kernels before
// it still run, and leave room for the next one's while they end.
//
// A block owns an even share of the weight's rows and takes up to 32 at a time, as 16-row operands;
// rows of x (tokens) are the 8-row operand. Its warps divide K by lines of 64 elements. Fragments
// come from 16-byte loads, as in matmul_rows_mma_cuda.cu. The order of a sum follows from K alone.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "ops/matmul/matmul_cpu.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"
#include "ops/matmul/matmul_mma_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr const char* kName = "matmul_gemv_cuda";
constexpr int kMaxTokens = 8;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kResident = 2;  // blocks that registers have room for; the grid has one each
constexpr int kEights = 4;    // of weight rows, in a tile
constexpr int kTileRows = 8 * kEights;
constexpr int kChunk = 32;  // elements of K in one 16-byte load of a lane
constexpr int kChunks = 2;  // in a line, one cache line of a weight row
constexpr int kLine = kChunks * kChunk;
constexpr int kRound = kWarps * kLine;  // elements of K that the warps take at once
constexpr int kLoads = kEights * kChunks;
constexpr int kPartialStride = kTileRows + 4;  // against bank conflicts
constexpr int kMaxStaged = 68 << 10;           // bytes of x in shared memory
/// What a block asks the second-level cache for, beside the loads of its first two rounds.
constexpr int kPrefetchBytes = 128 << 10;

struct GemvPlan {
  int rounds = 0;    // of K, an even number: two are under way
  int x_stride = 0;  // of staged tokens, in elements: neighbours lie in different banks
  int prefetched_rounds = 0;
};

/// 16 bytes of a constant that are read once, or zeros.
__device__ inline uint4 load_streamed_if(const void* from, bool inside) {
  uint4 v;
  asm volatile(
      "{\n"
      ".reg .pred inside;\n"
      "setp.ne.u32 inside, %5, 0;\n"
      "mov.b32 %0, 0;\n"
      "mov.b32 %1, 0;\n"
      "mov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n"
      "@inside ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}\n"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(from), "r"(static_cast<unsigned>(inside)));
  return v;
}

__device__ inline void prefetch_bulk(const void* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

/// The weight rows of this block: tiles of `height` rows, the last one may have less.
struct GemvShare {
  int64_t first;
  int rows, height;

  __device__ explicit GemvShare(int64_t cols)
      : first(cols * blockIdx.x / gridDim.x),
        rows(static_cast<int>(cols * (blockIdx.x + 1) / gridDim.x - first)) {
    const int tiles = max(1, (rows + kTileRows - 1) / kTileRows);
    height = (rows + tiles - 1) / tiles;
  }
};

/// This lane's loads of the weight, round by round and tile by tile; zeros outside.
template <typename T>
class GemvLoads {
 public:
  __device__ GemvLoads(const MatmulJob& job, const GemvShare& share, const GemvPlan& plan)
      : depth_(static_cast<int>(job.depth)),
        height_(share.height),
        rounds_(plan.rounds),
        left_(share.rows - group()),
        rounds_left_(plan.rounds),
        k_(first_k()),
        row_(static_cast<const T*>(job.weight) + (share.first + group()) * job.depth) {}

  /// The weight row within eight, and the token, of this lane's fragments.
  __device__ static int group() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
  __device__ static int first_k() {
    return static_cast<int>(threadIdx.x) / kWarp * kLine +
           static_cast<int>(threadIdx.x) % 4 * kPackOf<T>;
  }

  /// This lane's first element of K in the next round.
  __device__ int k() const { return k_; }

  __device__ void fetch(uint4 (&to)[kLoads]) {
    const int rows = min(left_, height_ - group());
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int k = k_ + chunk * kChunk;
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        to[chunk * kEights + eight] = load_streamed_if(row_ + int64_t{8 * eight} * depth_ + k,
                                                       8 * eight < rows && k < depth_);
      }
    }
    k_ += kRound;
    if (--rounds_left_ > 0) return;
    rounds_left_ = rounds_;
    k_ = first_k();
    row_ += int64_t{height_} * depth_;
    left_ -= height_;
  }

 private:
  int depth_, height_, rounds_;
  int left_, rounds_left_, k_;  // left_: weight rows from this lane's on
  const T* row_;
};

/// Asks the cache for what follows the first two rounds, in the order of its use.
template <typename T>
__device__ void prefetch_weight(const MatmulJob& job, const GemvShare& share,
                                const GemvPlan& plan) {
  if (threadIdx.x % kWarp != 0) return;
  const auto depth = static_cast<int>(job.depth);
  const T* weight = static_cast<const T*>(job.weight);
  int left = plan.prefetched_rounds;
  int round = 2;
  for (int tile = 0; tile < share.rows && left > 0; tile += share.height) {
    const int rounds = min(plan.rounds - round, left);
    const int k = round * kRound;
    const int bytes = (min(depth, k + rounds * kRound) - k) * static_cast<int>(sizeof(T));
    const int rows = min(share.height, share.rows - tile);
    for (int row = static_cast<int>(threadIdx.x) / kWarp; row < rows && bytes > 0; row += kWarps)
      prefetch_bulk(weight + (share.first + tile + row) * job.depth + k, bytes);
    left -= rounds;
    round = 0;
  }
}

/// This lane's fragments of x. Staged: from shared memory [T, x_stride], where K is padded with
/// zeros. Else from memory, two rounds ahead like the weight.
template <typename T, bool kStaged>
class GemvTokens {
 public:
  __device__ GemvTokens(const MatmulJob& job, const GemvPlan& plan, T* staged) {
    const int token = GemvLoads<T>::group();
    if constexpr (kStaged) {
      const int last = static_cast<int>(job.rows) - 1;
      at_ = staged + min(token, last) * plan.x_stride + GemvLoads<T>::first_k();
    } else {
      at_ = static_cast<const T*>(job.x) + token * job.depth;
      depth_ = token < job.rows ? static_cast<int>(job.depth) : 0;
    }
  }

  __device__ static void stage(const MatmulJob& job, const GemvPlan& plan, T* staged) {
    const int packs = plan.rounds * (kRound / kPackOf<T>);
    const auto depth = static_cast<int>(job.depth);
    for (int i = threadIdx.x; i < static_cast<int>(job.rows) * packs; i += kThreads) {
      const int token = i / packs;
      const int k = (i - token * packs) * kPackOf<T>;
      copy_async(shared_address_of(staged + token * plan.x_stride + k),
                 static_cast<const T*>(job.x) + token * job.depth + min(k, depth - kPackOf<T>),
                 k < depth);
    }
    commit_copies();
    wait_for_copies<0>();
  }

  /// The loads of the round that begins with this lane's element k.
  __device__ void fetch(int k, uint4 (&to)[kChunks]) const {
    if constexpr (!kStaged) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        to[chunk] = uint4{};
        if (k + chunk * kChunk < depth_)
          to[chunk] = *reinterpret_cast<const uint4*>(at_ + k + chunk * kChunk);
      }
    }
  }

  /// Just before the products of round `round`.
  __device__ void read(int round, uint4 (&to)[kChunks]) const {
    if constexpr (kStaged) {
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk)
        to[chunk] = *reinterpret_cast<const uint4*>(at_ + round * kRound + chunk * kChunk);
    }
  }

 private:
  const T* at_;
  int depth_ = 0;
};

using GemvSums = float[kEights / 2][4];

/// Adds the products of one round.
template <typename T>
__device__ inline void add_round(const uint4 (&w)[kLoads], const uint4 (&x)[kChunks],
                                 GemvSums& sums) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
    for (int i = 0; i < kEights / 2; ++i) {
      const uint4 low = w[chunk * kEights + 2 * i];
      const uint4 high = w[chunk * kEights + 2 * i + 1];
      multiply_add<T>(sums[i], {low.x, high.x, low.y, high.y}, {x[chunk].x, x[chunk].y});
      multiply_add<T>(sums[i], {low.z, high.z, low.w, high.w}, {x[chunk].z, x[chunk].w});
    }
  }
}

using GemvPartial = float[kWarps][kMaxTokens][kPartialStride];

/// This warp's sums of a tile.
__device__ inline void store_sums(GemvSums& sums, GemvPartial& partial) {
  const int lane = threadIdx.x % kWarp;
  float(&to)[kMaxTokens][kPartialStride] = partial[threadIdx.x / kWarp];
#pragma unroll
  for (int i = 0; i < kEights / 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      to[lane % 4 * 2 + j % 2][16 * i + j / 2 * 8 + lane / 4] = sums[i][j];
      sums[i][j] = 0;
    }
  }
}

/// A parameter of the kernel that the compiler takes for unknown.
__device__ inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

template <typename T, bool kStaged>
__global__ void __launch_bounds__(kThreads, kResident)
    matmul_gemv_kernel(const __grid_constant__ MatmulJob job,
                       const __grid_constant__ GemvPlan plan) {
  extern __shared__ __align__(16) unsigned char bytes[];
  __shared__ GemvPartial partial[2];
  device::let_successor_start();
  T* staged = reinterpret_cast<T*>(bytes);
  const GemvShare share(job.cols);
  GemvLoads<T> loads(job, share, plan);
  uint4 even[kLoads], odd[kLoads], even_x[kChunks], odd_x[kChunks];
  const int even_k = loads.k();
  loads.fetch(even);
  const int odd_k = loads.k();
  loads.fetch(odd);
  prefetch_weight<T>(job, share, plan);
  __syncwarp();
  device::wait_for_predecessor();
  if constexpr (kStaged) {
    GemvTokens<T, kStaged>::stage(job, plan, staged);
    __syncthreads();
  }
  const GemvTokens<T, kStaged> tokens(job, plan, staged);
  tokens.fetch(even_k, even_x);
  tokens.fetch(odd_k, odd_x);
  const auto advance = [&](int round, uint4(&w)[kLoads], uint4(&x)[kChunks], GemvSums& sums) {
    tokens.read(round, x);
    add_round<T>(w, x, sums);
    tokens.fetch(loads.k(), x);
    loads.fetch(w);
  };
  const int rounds = opaque(plan.rounds);
  const int token = threadIdx.x / kTileRows;  // of the output that this thread writes
  GemvSums sums = {};
  int parity = 0;
#pragma unroll 1
  for (int first = 0; first < share.rows; first += share.height) {
    const int row = first + static_cast<int>(threadIdx.x) % kTileRows;
    const bool writes = token < job.rows && row < min(first + share.height, share.rows);
    EpilogueBits bits;
    if (writes) bits = load_epilogue(job, token, share.first + row);
#pragma unroll 1
    for (int round = 0; round < rounds; ++round) {
      advance(round, even, even_x, sums);
      // Never so. The branch keeps the compiler from waiting for both rounds before it fetches any.
      if (++round == rounds) break;
      advance(round, odd, odd_x, sums);
    }
    store_sums(sums, partial[parity]);
    __syncthreads();  // one a tile is enough: the next one writes the other half
    if (writes) {
      float sum = 0;
#pragma unroll
      for (int warp = 0; warp < kWarps; ++warp)
        sum += partial[parity][warp][token][row - first];
      store_out(job, token, share.first + row, finish(job, bits, sum));
    }
    parity ^= 1;
  }
}

int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

template <typename T, bool kStaged>
void run_gemv(const Launch& launch, const MatmulJob& job, const GemvPlan& plan, int64_t x_bytes) {
  static const bool allowed =
      device::allow_shared(kName, matmul_gemv_kernel<T, kStaged>, kMaxStaged);
  CHECK(allowed);
  const int64_t blocks = std::min<int64_t>(device::multiprocessors(), job.cols);
  device::launch_kernel(kName, *launch.queue, dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                        kStaged ? static_cast<size_t>(x_bytes) : 0, matmul_gemv_kernel<T, kStaged>,
                        job, plan);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  GemvPlan plan;
  plan.rounds = ceil_div(job.depth, 2 * kRound) * 2;
  plan.x_stride = plan.rounds * kRound + kChunk;
  plan.prefetched_rounds = kPrefetchBytes / (kTileRows * kRound * static_cast<int>(sizeof(T)));
  const int64_t x_bytes = job.rows * plan.x_stride * static_cast<int64_t>(sizeof(T));
  if (x_bytes <= kMaxStaged) {
    run_gemv<T, true>(launch, job, plan, x_bytes);
  } else {
    run_gemv<T, false>(launch, job, plan, x_bytes);
  }
}

}  // namespace

std::string matmul_gemv_cuda_why_not(const Launch& launch, const device::Properties&) {
  if (launch.in[0].dim(0) > kMaxTokens) return str("more than ", kMaxTokens, " rows");
  return mma_cuda_why_not(launch);
}

void matmul_gemv_cuda(const Launch& launch) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return;
  if (job.x_type == ir::DType::kBF16) {
    run_typed<__nv_bfloat16>(launch, job);
  } else {
    run_typed<__half>(launch, job);
  }
}

}  // namespace millrace::ops
