#include "ops/common/vector_access_cuda.cuh"
#include "ops/moe_combine/moe_combine.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block takes kThreads * kPack columns of one row. y: [T, k, N], weights: [T, k], out: [T, N].
template <int kPack, typename T>
__global__ void __launch_bounds__(kThreads)
    moe_combine_kernel(const T* y, const float* weights, T* out, int64_t width, int experts) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kPack;
  if (column >= width) return;
  const int64_t row = blockIdx.x;
  float sums[kPack] = {};
  for (int j = 0; j < experts; ++j) {
    const float weight = weights[row * experts + j];
    float values[kPack];
    load_floats<kPack>(y + (row * experts + j) * width + column, values);
#pragma unroll
    for (int i = 0; i < kPack; ++i)
      sums[i] = fmaf(weight, values[i], sums[i]);
  }
  store_floats<kPack>(sums, out + row * width + column);
}

}  // namespace

void moe_combine_cuda(const Launch& launch) {
  const Tensor& y = launch.in[0];
  const Tensor& out = launch.out[0];  // [T, N]
  if (out.count() == 0) return;
  with_float_type(out.dtype, [&]<typename T>(T) {
    const int64_t width = out.dim(1);
    const auto start = [&](auto kernel, int pack) {
      const dim3 grid(static_cast<unsigned>(out.dim(0)), blocks_for(width, kThreads * pack));
      device::launch_kernel("moe_combine_cuda", *launch.queue, grid, dim3(kThreads), 0, kernel,
                            y.as<T>(), launch.in[1].as<float>(), out.as<T>(), width,
                            static_cast<int>(launch.in[1].dim(1)));
    };
    if (width % kPackOf<T> == 0 && aligned_to_16(y.as<T>(), out.as<T>())) {
      start(moe_combine_kernel<kPackOf<T>, T>, kPackOf<T>);
    } else {
      start(moe_combine_kernel<1, T>, 1);
    }
  });
}

}  // namespace millrace::ops
