// Any types and any sizes: tiles of 64 x 64 outputs, products and sums in float.
#include "ops/matmul/matmul_cpu.h"
#include "ops/matmul/matmul_cuda.h"
#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kTile = 64;      // outputs, both ways
constexpr int kDepth = 16;     // of the tiles in shared memory
constexpr int kThreads = 256;  // 16 x 16, with 4 x 4 outputs each
constexpr int kLoads = kTile * kDepth / kThreads;
constexpr int kStride = kTile + 4;
constexpr int kFlush = 8;  // tiles summed before they join the total, for smaller rounding errors

/// This thread's part of tile [first_row, +64) x [first_k, +16) of a matrix [rows, depth]; zeros
/// outside.
template <typename T>
__device__ void load_tile(const void* matrix, int64_t rows, int64_t depth, int64_t first_row,
                          int64_t first_k, float (&to)[kLoads]) {
  const int64_t k = first_k + threadIdx.x % kDepth;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int64_t row = first_row + threadIdx.x / kDepth + i * (kThreads / kDepth);
    const bool inside = row < rows && k < depth;
    to[i] = inside ? to_float(static_cast<const T*>(matrix)[row * depth + k]) : 0.0F;
  }
}

__device__ void store_tile(const float (&from)[kLoads], float (&tile)[kDepth][kStride]) {
#pragma unroll
  for (int i = 0; i < kLoads; ++i)
    tile[threadIdx.x % kDepth][threadIdx.x / kDepth + i * (kThreads / kDepth)] = from[i];
}

__device__ void add_products(const float (&x)[kDepth][kStride], const float (&w)[kDepth][kStride],
                             float (&sums)[4][4]) {
  const int first_t = threadIdx.x / 16 * 4;
  const int first_n = threadIdx.x % 16 * 4;
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    const auto a = *reinterpret_cast<const Pack<float, 4>*>(&x[k][first_t]);
    const auto b = *reinterpret_cast<const Pack<float, 4>*>(&w[k][first_n]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        sums[i][j] = fmaf(a.at[i], b.at[j], sums[i][j]);
    }
  }
}

__device__ void flush(float (&sums)[4][4], float (&totals)[4][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      totals[i][j] += sums[i][j];
      sums[i][j] = 0;
    }
  }
}

__device__ void write_outputs(const MatmulJob& job, const float (&totals)[4][4]) {
  const int64_t first_t = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x / 16 * 4;
  const int64_t first_n = static_cast<int64_t>(blockIdx.y) * kTile + threadIdx.x % 16 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t t = first_t + i;
      const int64_t n = first_n + j;
      if (t >= job.rows || n >= job.cols) continue;
      write_out(job, t, n, totals[i][j]);
    }
  }
}

template <typename X, typename W>
__global__ void __launch_bounds__(kThreads, 2)
    matmul_tiles_kernel(const __grid_constant__ MatmulJob job) {
  __shared__ alignas(16) float x_tile[kDepth][kStride];
  __shared__ alignas(16) float w_tile[kDepth][kStride];
  device::let_successor_start();
  const int64_t first_t = static_cast<int64_t>(blockIdx.x) * kTile;
  const int64_t first_n = static_cast<int64_t>(blockIdx.y) * kTile;
  float x[kLoads], w[kLoads];
  load_tile<W>(job.weight, job.cols, job.depth, first_n, 0, w);
  device::wait_for_predecessor();
  load_tile<X>(job.x, job.rows, job.depth, first_t, 0, x);
  float sums[4][4] = {}, totals[4][4] = {};
  int until_flush = kFlush;
  for (int64_t k = 0; k < job.depth; k += kDepth) {
    store_tile(x, x_tile);
    store_tile(w, w_tile);
    __syncthreads();
    load_tile<X>(job.x, job.rows, job.depth, first_t, k + kDepth, x);
    load_tile<W>(job.weight, job.cols, job.depth, first_n, k + kDepth, w);
    add_products(x_tile, w_tile, sums);
    if (--until_flush == 0) {
      flush(sums, totals);
      until_flush = kFlush;
    }
    __syncthreads();
  }
  flush(sums, totals);
  write_outputs(job, totals);
}

}  // namespace

void matmul_cuda(const Launch& launch) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return;
  const dim3 grid(static_cast<unsigned>((job.rows + kTile - 1) / kTile),
                  static_cast<unsigned>((job.cols + kTile - 1) / kTile));
  with_float_type(job.x_type, [&]<typename X>(X) {
    with_float_type(job.weight_type, [&]<typename W>(W) {
      device::launch_kernel("matmul_cuda", *launch.queue, grid, dim3(kThreads), 0,
                            matmul_tiles_kernel<X, W>, job);
    });
  });
}

}  // namespace millrace::ops
