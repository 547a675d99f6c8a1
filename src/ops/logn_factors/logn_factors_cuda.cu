#include "ops/common/cuda_kernel.cuh"
#include "ops/logn_factors/logn_factors.h"
#include "ops/logn_factors/logn_factors_math.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A thread makes one row. positions: [T], out: [T, 1].
__global__ void __launch_bounds__(kThreads)
    logn_factors_kernel(const int32_t* positions, float* out, int64_t rows, int64_t length) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t < rows) out[t] = static_cast<float>(logn_factor_at(positions[t], length));
}

}  // namespace

void logn_factors_cuda(const Launch& launch) {
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  device::launch_kernel("logn_factors_cuda", *launch.queue,
                        dim3(static_cast<unsigned>((rows + kThreads - 1) / kThreads)),
                        dim3(kThreads), 0, logn_factors_kernel, launch.in[0].as<int32_t>(),
                        launch.out[0].as<float>(), rows,
                        int64_t{launch.attrs<LognFactors>().length});
}

}  // namespace millrace::ops
