// Few rows on FMA units: exact products of any types. A tile is 8 weight rows; a warp takes every
// 8th chunk of K, a lane 16 bytes of each weight row in it. Rows of x (tokens) lie in shared memory
// as floats.
#include <algorithm>

#include "base/str.h"
#include "ops/common/shared_memory.h"
#include "ops/common/vector_access_cuda.cuh"
#include "ops/matmul/matmul_cpu.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_rows_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kTileRows = 8;
constexpr int kMaxKernelTokens = 4;
constexpr int64_t kMaxShared = 224 << 10;
/// Partial sums of the warps.
constexpr int64_t kStaticShared = int64_t{2} * kRowsWarps * kMaxKernelTokens * kTileRows * 4;

/// Elements of K that a warp reads of one weight row at once.
template <typename W>
constexpr int kChunk = kWarp * kPackOf<W>;

/// Where element k of a token lies: chunks stay together, and in them first come the first four
/// elements of each lane, then its next four, so that lanes read without bank conflicts.
template <typename W>
__device__ int shared_index(int k) {
  const int in_chunk = k % kChunk<W>;
  return k - in_chunk + in_chunk % kPackOf<W> / 4 * (4 * kWarp) + in_chunk / kPackOf<W> * 4;
}

/// kTokens rows of x from `first` on, [kTokens, stride] as floats; zeros outside of x.
template <typename X, typename W, int kTokens>
__device__ void stage_x(const MatmulJob& job, int64_t first, int stride, float* shared) {
  constexpr int kBatch = 4;  // loads in flight per thread
  const int quads = stride / 4;
  for (int base = threadIdx.x; base < kTokens * quads; base += kBatch * kRowsThreads) {
    Pack<float, 4> values[kBatch] = {};
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = base + i * kRowsThreads;
      const int64_t t = first + at / quads;
      const int k = at % quads * 4;
      if (at < kTokens * quads && t < job.rows && k < job.depth) {
        load_floats<4>(static_cast<const X*>(job.x) + t * job.depth + k, values[i].at);
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int at = base + i * kRowsThreads;
      if (at >= kTokens * quads) continue;
      const int to = at / quads * stride + shared_index<W>(at % quads * 4);
      *reinterpret_cast<Pack<float, 4>*>(shared + to) = values[i];
    }
  }
}

template <typename W, int kTokens>
__device__ void stage_any_x(const MatmulJob& job, int64_t first, int stride, float* shared) {
  if (job.x_type == ir::DType::kF32) {
    stage_x<float, W, kTokens>(job, first, stride, shared);
  } else if (job.x_type == ir::DType::kBF16) {
    stage_x<__nv_bfloat16, W, kTokens>(job, first, stride, shared);
  } else {
    stage_x<__half, W, kTokens>(job, first, stride, shared);
  }
}

/// Elements [4 part, + 4) of 16 bytes of a weight.
template <typename W>
__device__ void widen_four(const uint4& bits, int part, float (&to)[4]) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  if constexpr (sizeof(W) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      to[i] = __uint_as_float(words[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t word = words[2 * part + i];
      to[2 * i] = bits_to_float(word & 0xffffU, kDTypeOf<W>);
      to[2 * i + 1] = bits_to_float(word >> 16, kDTypeOf<W>);
    }
  }
}

/// Sums of kCount values over the lanes of a warp; lane i gets that of value i / (32 / kCount). The
/// order of the additions is the same for every value and every kCount.
template <int kCount>
__device__ float sum_over_lanes(float (&values)[kCount]) {
  const int lane = threadIdx.x % kWarp;
  int count = kCount;
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    if (count == 1) {
      values[0] += __shfl_xor_sync(0xffffffffU, values[0], step);
      continue;
    }
    count /= 2;
    const bool upper = (lane & step) != 0;
#pragma unroll
    for (int i = 0; i < kCount / 2; ++i) {
      if (i >= count) continue;
      const float kept = upper ? values[i + count] : values[i];
      const float sent = upper ? values[i] : values[i + count];
      values[i] = kept + __shfl_xor_sync(0xffffffffU, sent, step);
    }
  }
  return values[0];
}

/// Adds the products of one chunk; `x` is this lane's first element of token 0 in it.
template <typename W, int kTokens>
__device__ void add_products(const uint4 (&w)[kTileRows], const float* x, int stride,
                             float (&sums)[kTokens * kTileRows]) {
#pragma unroll
  for (int part = 0; part < kPackOf<W> / 4; ++part) {
    Pack<float, 4> xs[kTokens];
#pragma unroll
    for (int t = 0; t < kTokens; ++t)
      xs[t] = *reinterpret_cast<const Pack<float, 4>*>(x + t * stride + part * (4 * kWarp));
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      float ws[4];
      widen_four<W>(w[row], part, ws);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        float& sum = sums[t * kTileRows + row];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sum = fmaf(ws[i], xs[t].at[i], sum);
      }
    }
  }
}

/// Tokens blockIdx.y * kTokens and on. `stride`: K rounded up to whole chunks.
template <typename W, int kTokens>
__global__ void __launch_bounds__(kRowsThreads, 2)
    matmul_rows_kernel(const __grid_constant__ MatmulJob job, int stride) {
  constexpr int kOutputs = kTokens * kTileRows;
  extern __shared__ __align__(16) float x_shared[];  // [kTokens, stride]
  __shared__ float partial[2][kRowsWarps][kOutputs];
  device::let_successor_start();
  const int warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int chunks = stride / kChunk<W>;
  const int64_t first_token = static_cast<int64_t>(blockIdx.y) * kTokens;
  const int64_t token = first_token + threadIdx.x / kTileRows;  // of the output this thread writes
  const bool writes = threadIdx.x < kOutputs && token < job.rows;
  float sums[kOutputs] = {};
  EpilogueBits bits;
  int parity = 0;

  const auto load = [&](uint4(&w)[kTileRows], int64_t tile, int step) {
    const int k = (step * kRowsWarps + warp) * kChunk<W> + lane * kPackOf<W>;
    const int64_t n = tile * kTileRows;
    const int last = static_cast<int>(min(int64_t{kTileRows}, job.cols - n)) - 1;
    const W* from = static_cast<const W*>(job.weight) + n * job.depth + k;
#pragma unroll
    for (int row = 0; row < kTileRows; ++row) {
      w[row] = uint4{};
      if (k < job.depth) w[row] = load_streamed(from + min(row, last) * job.depth);
    }
  };
  const auto begin = [&] {
    device::wait_for_predecessor();
    stage_any_x<W, kTokens>(job, first_token, stride, x_shared);
    __syncthreads();
  };
  const auto compute = [&](const uint4(&w)[kTileRows], int64_t tile, int step) {
    const int64_t n = tile * kTileRows + threadIdx.x % kTileRows;
    if (step == 0 && writes && n < job.cols) bits = load_epilogue(job, token, n);
    const int chunk = step * kRowsWarps + warp;
    if (chunk >= chunks) return;
    add_products<W, kTokens>(w, x_shared + chunk * kChunk<W> + lane * 4, stride, sums);
  };
  const auto finish_tile = [&](int64_t tile) {
    constexpr int kLanesEach = kWarp / kOutputs;
    const float sum = sum_over_lanes<kOutputs>(sums);
    if (lane % kLanesEach == 0) partial[parity][warp][lane / kLanesEach] = sum;
    __syncthreads();  // one a tile is enough: the next one writes the other half
    const int64_t n = tile * kTileRows + threadIdx.x % kTileRows;
    if (writes && n < job.cols) {
      float total = 0;
#pragma unroll
      for (int i = 0; i < kRowsWarps; ++i)
        total += partial[parity][i][threadIdx.x];
      store_out(job, token, n, finish(job, bits, total));
    }
    parity ^= 1;
#pragma unroll
    for (float& value : sums)
      value = 0;
  };
  const int64_t tiles = (job.cols + kTileRows - 1) / kTileRows;
  stream_tiles<kTileRows>(tiles, (chunks + kRowsWarps - 1) / kRowsWarps, load, begin, compute,
                          finish_tile);
}

int64_t stride_of(int64_t depth, ir::DType weight) {
  const int64_t chunk = kWarp * 16 / ir::dtype_size(weight);
  return (depth + chunk - 1) / chunk * chunk;
}

template <typename W, int kTokens>
void run_rows(const Launch& launch, const MatmulJob& job, int64_t stride) {
  static const bool allowed = device::allow_shared(
      "matmul_rows_cuda", matmul_rows_kernel<W, kTokens>, static_cast<int>(kMaxShared));
  CHECK(allowed);
  const dim3 grid(rows_grid((job.cols + kTileRows - 1) / kTileRows),
                  static_cast<unsigned>((job.rows + kTokens - 1) / kTokens));
  const auto shared = static_cast<size_t>(kTokens * stride) * sizeof(float);
  device::launch_kernel("matmul_rows_cuda", *launch.queue, grid, dim3(kRowsThreads), shared,
                        matmul_rows_kernel<W, kTokens>, job, static_cast<int>(stride));
}

}  // namespace

std::string matmul_rows_cuda_why_not(const Launch& launch, const device::Properties& device) {
  const Tensor& weight = launch.in[1];
  const int64_t depth = weight.dim(1);
  if (launch.in[0].dim(0) > kMaxRowsCuda) return str("more than ", kMaxRowsCuda, " rows");
  const int64_t pack = 16 / ir::dtype_size(weight.dtype);
  if (depth == 0 || depth % pack != 0) return str("K is not a multiple of ", pack);
  const int64_t bytes = stride_of(depth, weight.dtype) * static_cast<int64_t>(sizeof(float));
  if (bytes > kMaxShared) return "a row of x is too long for shared memory";
  return why_no_shared(bytes + kStaticShared, device);
}

void matmul_rows_cuda(const Launch& launch) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return;
  const int64_t stride = stride_of(job.depth, job.weight_type);
  const int64_t room =
      std::min<int64_t>(kMaxShared, device::shared_bytes_of_block() - kStaticShared);
  const int64_t fit = room / (stride * static_cast<int64_t>(sizeof(float)));
  const int64_t tokens = std::min(fit, job.rows);
  with_float_type(job.weight_type, [&]<typename W>(W) {
    if (tokens >= 3 && fit >= kMaxKernelTokens) {
      run_rows<W, kMaxKernelTokens>(launch, job, stride);
    } else if (tokens >= 2) {
      run_rows<W, 2>(launch, job, stride);
    } else {
      run_rows<W, 1>(launch, job, stride);
    }
  });
}

}  // namespace millrace::ops
