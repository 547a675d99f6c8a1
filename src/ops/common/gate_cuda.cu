#include "ops/common/activation_cuda.cuh"
#include "ops/common/gate_cuda.h"
#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block takes kThreads * kPack columns of one row. gate_up: [T, 2F], out: [T, F].
template <int kPack, typename T>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(const T* gate_up, T* out, int64_t width, ActivationKind kind) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t column = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kPack;
  if (column >= width) return;
  const T* from = gate_up + int64_t{blockIdx.x} * 2 * width + column;
  float gate[kPack], up[kPack];
  load_floats<kPack>(from, gate);
  load_floats<kPack>(from + width, up);
#pragma unroll
  for (int i = 0; i < kPack; ++i)
    gate[i] = activate(kind, gate[i]) * up[i];
  store_floats<kPack>(gate, out + int64_t{blockIdx.x} * width + column);
}

}  // namespace

void gate_cuda(const device::Queue& queue, ActivationKind kind, const Tensor& gate_up,
               const Tensor& out) {
  if (out.count() == 0) return;
  with_float_type(out.dtype, [&]<typename T>(T) {
    const int64_t width = out.dim(-1);
    const auto start = [&](auto kernel, int pack) {
      const dim3 grid(static_cast<unsigned>(out.rows()), blocks_for(width, kThreads * pack));
      device::launch_kernel("gate_cuda", queue, grid, dim3(kThreads), 0, kernel, gate_up.as<T>(),
                            out.as<T>(), width, kind);
    };
    if (width % kPackOf<T> == 0 && aligned_to_16(gate_up.as<T>(), out.as<T>())) {
      start(gate_kernel<kPackOf<T>, T>, kPackOf<T>);
    } else {
      start(gate_kernel<1, T>, 1);
    }
  });
}

}  // namespace millrace::ops
