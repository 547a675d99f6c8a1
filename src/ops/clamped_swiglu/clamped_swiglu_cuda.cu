#include "ops/clamped_swiglu/clamped_swiglu.h"
#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A thread makes one element from one pair.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    clamped_swiglu_kernel(const T* gate_up, T* out, int64_t count, float alpha, float limit) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float gate = fminf(to_float(gate_up[2 * i]), limit);
  const float up = fmaxf(fminf(to_float(gate_up[2 * i + 1]), limit), -limit);
  out[i] = from_float<T>((up + 1.0F) * (gate / (1.0F + expf(-alpha * gate))));
}

}  // namespace

void clamped_swiglu_cuda(const Launch& launch) {
  const Tensor& out = launch.out[0];
  if (out.count() == 0) return;
  const auto& a = launch.attrs<ClampedSwiglu>();
  const auto alpha = static_cast<float>(a.alpha), limit = static_cast<float>(a.limit);
  with_float_type(out.dtype, [&]<typename T>(T) {
    device::launch_kernel("clamped_swiglu_cuda", *launch.queue,
                          dim3(blocks_for(out.count(), kThreads)), dim3(kThreads), 0,
                          clamped_swiglu_kernel<T>, launch.in[0].as<T>(), out.as<T>(), out.count(),
                          alpha, limit);
  });
}

}  // namespace millrace::ops
