#include "ops/common/cuda_kernel.cuh"
#include "ops/sinusoid/sinusoid_math.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block of threads makes one row. positions: [T], out: [T, dim].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sinusoid_kernel(const int32_t* positions, T* out, int64_t dim) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t row = blockIdx.x;
  for (int64_t c = threadIdx.x; c < dim; c += kThreads) {
    out[row * dim + c] = from_float<T>(static_cast<float>(sinusoid_at(positions[row], c, dim)));
  }
}

}  // namespace

void sinusoid_cuda(const Launch& launch) {
  const Tensor& out = launch.out[0];
  if (out.count() == 0) return;
  with_float_type(out.dtype, [&]<typename T>(T) {
    device::launch_kernel("sinusoid_cuda", *launch.queue, dim3(static_cast<unsigned>(out.dim(0))),
                          dim3(kThreads), 0, sinusoid_kernel<T>, launch.in[0].as<int32_t>(),
                          out.as<T>(), out.dim(1));
  });
}

}  // namespace millrace::ops
