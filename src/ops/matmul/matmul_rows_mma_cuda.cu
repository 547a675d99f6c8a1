// Few rows on tensor cores: a tile is 16 weight rows, the 16-row operand of the products; rows of x
// (tokens) are the 8-row operand. A warp takes every 8th group of 128 elements of K.
//
// Fragments come from 16-byte loads: of 32 elements of K a lane holds 8 neighbours, where two
// products would have it hold four pairs that lie apart. Both operands are permuted alike, so sums
// only change their order.
#include <algorithm>
#include <limits>

#include "base/str.h"
#include "ops/common/tensor_core_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_rows_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kTileRows = 16;
constexpr int kChunk = 32;       // elements of K in one 16-byte load of a lane
constexpr int kGroupChunks = 4;  // chunks in a step
constexpr int kGroup = kGroupChunks * kChunk;
constexpr int kLoads = 2 * kGroupChunks;       // of a lane in a step: two weight rows
constexpr int kPartialStride = kTileRows + 4;  // against bank conflicts
// With more the second block of a multiprocessor would not fit; x then comes from the cache.
constexpr int64_t kMaxShared = 96 << 10;

/// Elements between tokens in shared memory: 64 bytes off a multiple of 128, so that the two tokens
/// that are read at once lie in different banks.
__host__ __device__ constexpr int64_t shared_stride(int64_t depth) {
  return (depth + 63) / 64 * 64 + 32;
}

template <typename T>
__device__ void stage_x(const MatmulJob& job, T* shared) {
  const int packs = static_cast<int>(job.depth / kPackOf<T>);
  const auto stride = static_cast<int>(shared_stride(job.depth));
  const int count = static_cast<int>(job.rows) * packs;
  for (int i = threadIdx.x; i < count; i += kRowsThreads) {
    const int token = i / packs;
    const int k = (i - token * packs) * kPackOf<T>;
    copy_async(shared_address_of(shared + token * stride + k),
               static_cast<const T*>(job.x) + token * job.depth + k, true);
  }
  commit_copies();
  wait_for_copies<0>();
}

/// Adds the products of one chunk with 8 tokens; `low` and `high` are weight rows 8 apart.
template <typename T>
__device__ void add_products(const uint4& low, const uint4& high, const uint4& x,
                             float (&sums)[4]) {
  multiply_add<T>(sums, {low.x, high.x, low.y, high.y}, {x.x, x.y});
  multiply_add<T>(sums, {low.z, high.z, low.w, high.w}, {x.z, x.w});
}

/// kEights x 8 tokens at most. `is_staged`: x is copied to shared memory.
template <typename T, int kEights>
__global__ void __launch_bounds__(kRowsThreads, 2)
    matmul_rows_mma_kernel(const __grid_constant__ MatmulJob job, int steps, bool is_staged) {
  constexpr int kTokens = 8 * kEights;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ float partial[2][kRowsWarps][kTokens][kPartialStride];
  device::let_successor_start();
  const int warp = threadIdx.x / kWarp;
  const int group = threadIdx.x % kWarp / 4;  // the weight row, and the token, of this lane
  const int lane_k = threadIdx.x % 4 * kPackOf<T>;
  const int token = threadIdx.x / kTileRows;  // of the output this thread writes
  const bool writes = token < kTokens && token < job.rows;
  const auto depth = static_cast<int>(job.depth);
  const T* x[kEights];  // of tokens that are not there any other will do: their sums are not used
  const T* x_base = is_staged ? reinterpret_cast<const T*>(shared) : static_cast<const T*>(job.x);
  const int64_t x_stride = is_staged ? shared_stride(job.depth) : job.depth;
#pragma unroll
  for (int i = 0; i < kEights; ++i)
    x[i] = x_base + min(int64_t{group} + 8 * i, job.rows - 1) * x_stride;
  float sums[kEights][4] = {};
  EpilogueBits bits;
  int parity = 0;

  const auto load = [&](uint4(&w)[kLoads], int64_t tile, int step) {
    const int first_k = (step * kRowsWarps + warp) * kGroup + lane_k;
    const int64_t n = tile * kTileRows + group;
    const T* weight = static_cast<const T*>(job.weight);
    const T* low = weight + min(n, job.cols - 1) * job.depth;
    const T* high = weight + min(n + 8, job.cols - 1) * job.depth;
#pragma unroll
    for (int i = 0; i < kGroupChunks; ++i) {
      const int k = first_k + i * kChunk;
      w[2 * i] = w[2 * i + 1] = uint4{};
      if (k >= depth) continue;
      w[2 * i] = load_streamed(low + k);
      w[2 * i + 1] = load_streamed(high + k);
    }
  };
  const auto begin = [&] {
    device::wait_for_predecessor();
    if (is_staged) stage_x(job, reinterpret_cast<T*>(shared));
    __syncthreads();
  };
  const auto compute = [&](const uint4(&w)[kLoads], int64_t tile, int step) {
    const int64_t n = tile * kTileRows + threadIdx.x % kTileRows;
    if (step == 0 && writes && n < job.cols) bits = load_epilogue(job, token, n);
    const int first_k = (step * kRowsWarps + warp) * kGroup + lane_k;
#pragma unroll
    for (int i = 0; i < kGroupChunks; ++i) {
      const int k = first_k + i * kChunk;
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        uint4 xs = {};
        if (k < depth) xs = *reinterpret_cast<const uint4*>(x[eight] + k);
        add_products<T>(w[2 * i], w[2 * i + 1], xs, sums[eight]);
      }
    }
  };
  const auto finish_tile = [&](int64_t tile) {
    const int pair = threadIdx.x % 4 * 2;
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[parity][warp][8 * eight + pair + i % 2][group + i / 2 * 8] = sums[eight][i];
        sums[eight][i] = 0;
      }
    }
    __syncthreads();  // one a tile is enough: the next one writes the other half
    const int row = threadIdx.x % kTileRows;
    const int64_t n = tile * kTileRows + row;
    if (writes && n < job.cols) {
      float total = 0;
#pragma unroll
      for (int i = 0; i < kRowsWarps; ++i)
        total += partial[parity][i][token][row];
      store_out(job, token, n, finish(job, bits, total));
    }
    parity ^= 1;
  };
  stream_tiles<kLoads>((job.cols + kTileRows - 1) / kTileRows, steps, load, begin, compute,
                       finish_tile);
}

template <typename T, int kEights>
void run_rows(const Launch& launch, const MatmulJob& job) {
  static const bool allowed = device::allow_shared(
      "matmul_rows_mma_cuda", matmul_rows_mma_kernel<T, kEights>, static_cast<int>(kMaxShared));
  CHECK(allowed);
  const int64_t bytes = job.rows * shared_stride(job.depth) * static_cast<int64_t>(sizeof(T));
  constexpr int64_t kStatic =
      int64_t{2} * kRowsWarps * 8 * kEights * kPartialStride * 4;  // partial
  const bool is_staged =
      bytes <= std::min<int64_t>(kMaxShared, device::shared_bytes_of_block() - kStatic);
  const int64_t step = kRowsWarps * kGroup;
  device::launch_kernel("matmul_rows_mma_cuda", *launch.queue,
                        dim3(rows_grid((job.cols + kTileRows - 1) / kTileRows)), dim3(kRowsThreads),
                        is_staged ? static_cast<size_t>(bytes) : 0,
                        matmul_rows_mma_kernel<T, kEights>, job,
                        static_cast<int>((job.depth + step - 1) / step), is_staged);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job) {
  if (job.rows <= 8) {
    run_rows<T, 1>(launch, job);
  } else {
    run_rows<T, 2>(launch, job);
  }
}

}  // namespace

std::string mma_cuda_why_not(const Launch& launch) {
  const Tensor& x = launch.in[0];
  const Tensor& weight = launch.in[1];
  if (x.dtype != ir::DType::kBF16 && x.dtype != ir::DType::kF16) return "x is not bf16 or f16";
  if (weight.dtype != x.dtype) return "the weight is not of x's type";
  const int64_t depth = weight.dim(1);
  if (depth == 0 || depth % 8 != 0) return "K is not a multiple of 8";
  return depth > std::numeric_limits<int>::max() / 4 ? "K is too large" : "";
}

std::string matmul_rows_mma_cuda_why_not(const Launch& launch, const device::Properties&) {
  if (launch.in[0].dim(0) > kMaxRowsCuda) return str("more than ", kMaxRowsCuda, " rows");
  return mma_cuda_why_not(launch);
}

void matmul_rows_mma_cuda(const Launch& launch) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) { run_typed<T>(launch, job); });
}

}  // namespace millrace::ops
