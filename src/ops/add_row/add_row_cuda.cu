#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block of threads adds to one row. x, out: [T, width], row: [width].
template <typename T, typename R>
__global__ void __launch_bounds__(kThreads)
    add_row_kernel(const T* x, const R* row, T* out, int64_t width) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t first = blockIdx.x * width;
  for (int64_t i = threadIdx.x; i < width; i += kThreads)
    out[first + i] = from_float<T>(to_float(x[first + i]) + to_float(row[i]));
}

}  // namespace

void add_row_cuda(const Launch& launch) {
  const Tensor &x = launch.in[0], &row = launch.in[1], &out = launch.out[0];
  if (out.count() == 0) return;
  with_float_type(x.dtype, [&]<typename T>(T) {
    with_float_type(row.dtype, [&]<typename R>(R) {
      device::launch_kernel("add_row_cuda", *launch.queue, dim3(static_cast<unsigned>(x.dim(0))),
                            dim3(kThreads), 0, add_row_kernel<T, R>, x.as<T>(), row.as<R>(),
                            out.as<T>(), row.dim(1));
    });
  });
}

}  // namespace millrace::ops
