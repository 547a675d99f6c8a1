// Element by element: 16 bytes of each tensor per thread, the last elements one by one.
#pragma once

#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {

inline constexpr int kElementwiseThreads = 256;

/// out[i] = f(a[i], b[i]); `b` is null for functions of one argument, which see 0 for it.
template <bool kBinary, int kPack, typename T, typename F>
__global__ void __launch_bounds__(kElementwiseThreads)
    elementwise_kernel(const T* a, const T* b, T* out, int64_t count, F f) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t first = (int64_t{blockIdx.x} * kElementwiseThreads + threadIdx.x) * kPack;
  if (first + kPack <= count) {
    float x[kPack], y[kPack] = {};
    load_floats<kPack>(a + first, x);
    if constexpr (kBinary) load_floats<kPack>(b + first, y);
#pragma unroll
    for (int i = 0; i < kPack; ++i)
      x[i] = f(x[i], y[i]);
    store_floats<kPack>(x, out + first);
    return;
  }
  for (int64_t i = first; i < count; ++i) {
    const float y = kBinary ? to_float(b[i]) : 0.0F;
    out[i] = from_float<T>(f(to_float(a[i]), y));
  }
}

/// Runs f(float, float) on the device over input 0 and, if kBinary, input 1.
template <bool kBinary, typename F>
void elementwise_cuda(const Launch& launch, const char* name, F f) {
  const int64_t count = launch.out[0].count();
  if (count == 0) return;
  with_float_type(launch.in[0].dtype, [&]<typename T>(T) {
    const T* a = launch.in[0].as<T>();
    const T* b = kBinary ? launch.in[1].as<T>() : nullptr;
    T* out = launch.out[0].as<T>();
    const auto start = [&](auto kernel, int pack) {
      const dim3 grid(blocks_for((count + pack - 1) / pack, kElementwiseThreads));
      device::launch_kernel(name, *launch.queue, grid, dim3(kElementwiseThreads), 0, kernel, a, b,
                            out, count, f);
    };
    if (aligned_to_16(a, b, out)) {
      start(elementwise_kernel<kBinary, kPackOf<T>, T, F>, kPackOf<T>);
    } else {
      start(elementwise_kernel<kBinary, 1, T, F>, 1);
    }
  });
}

}  // namespace millrace::ops
