// Any types, sizes and numbers of rows; made for few: a warp makes some outputs of one slot, and
// only the weights of the slot's expert are read.
#include "ops/common/vector_access_cuda.cuh"
#include "ops/moe_matmul/moe_matmul_cuda.cuh"
#include "ops/moe_matmul/moe_matmul_tactics.h"

namespace millrace::ops {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr int kCols = 4;   // outputs of a warp: their loads are on the way together

template <int kPack, typename X, typename W>
__global__ void __launch_bounds__(kWarps* kWarp)
    moe_matmul_slots_kernel(const __grid_constant__ MoeMatmulJob job) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t slot = blockIdx.x;
  const int64_t first = (int64_t{blockIdx.y} * kWarps + threadIdx.x / kWarp) * kCols;
  if (first >= job.cols) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t expert = job.ids[slot];
  const X* x = static_cast<const X*>(job.x) + slot / job.slots_per_x * job.depth;
  const W* rows[kCols];
#pragma unroll
  for (int c = 0; c < kCols; ++c) {
    const int64_t col = min(first + c, job.cols - 1);
    rows[c] = static_cast<const W*>(job.weight) + (expert * job.cols + col) * job.depth;
  }
  float sums[kCols] = {};
#pragma unroll 2
  for (int64_t k = int64_t{lane} * kPack; k < job.depth; k += kWarp * kPack) {
    float values[kPack], weights[kCols][kPack];
    load_floats<kPack>(x + k, values);
#pragma unroll
    for (int c = 0; c < kCols; ++c)
      load_floats<kPack>(rows[c] + k, weights[c]);
#pragma unroll
    for (int c = 0; c < kCols; ++c) {
#pragma unroll
      for (int i = 0; i < kPack; ++i)
        sums[c] = fmaf(values[i], weights[c][i], sums[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kCols; ++c) {
    const float sum = warp_sum(sums[c]);
    if (lane == c && first + c < job.cols) write_expert_out(job, slot, expert, first + c, sum);
  }
}

}  // namespace

void moe_matmul_cuda(const Launch& launch) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  if (job.slots == 0 || job.cols == 0) return;
  const dim3 grid(static_cast<unsigned>(job.slots), blocks_for(job.cols, kWarps * kCols));
  const auto start = [&](auto kernel) {
    device::launch_kernel("moe_matmul_cuda", *launch.queue, grid, dim3(kWarps * kWarp), 0, kernel,
                          job);
  };
  with_float_type(job.x_type, [&]<typename X>(X) {
    with_float_type(job.weight_type, [&]<typename W>(W) {
      constexpr int kPack = kPackOf<W>;
      const bool whole = job.depth % kPack == 0 && aligned_to_16(static_cast<const X*>(job.x),
                                                                 static_cast<const W*>(job.weight));
      if (whole && job.depth * sizeof(X) % 16 == 0) {
        start(moe_matmul_slots_kernel<kPack, X, W>);
      } else {
        start(moe_matmul_slots_kernel<1, X, W>);
      }
    });
  });
}

}  // namespace millrace::ops
