#include "ops/common/cuda_kernel.cuh"
#include "ops/common/row_owner_cuda.cuh"
#include "ops/unfold_frames/unfold_frames.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// A block of threads makes one row of the result. x: [F, columns], out: [F / stride, 3 columns].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    unfold_kernel(const T* x, const int32_t* query_start, const int32_t* query_length,
                  int sequences, int64_t columns, int stride, T* out) {
  __shared__ int owner;
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t row = blockIdx.x, frame = row * stride;
  const int s = find_owner(query_start, query_length, sequences, frame / 2, &owner);
  if (s < 0) return;
  const int64_t first = int64_t{2} * query_start[s], end = first + int64_t{2} * query_length[s];
  for (int64_t i = threadIdx.x; i < 3 * columns; i += kThreads) {
    const int64_t source = frame + i % 3 - 1;
    const bool inside = source >= first && source < end;
    out[row * 3 * columns + i] = inside ? x[source * columns + i / 3] : from_float<T>(0);
  }
}

}  // namespace

void unfold_frames_cuda(const Launch& launch) {
  const Tensor &x = launch.in[0], &out = launch.out[0];
  if (out.count() == 0) return;
  with_float_type(x.dtype, [&]<typename T>(T) {
    device::launch_kernel("unfold_frames_cuda", *launch.queue,
                          dim3(static_cast<unsigned>(out.dim(0))), dim3(kThreads), 0,
                          unfold_kernel<T>, x.as<T>(), launch.in[1].as<int32_t>(),
                          launch.in[2].as<int32_t>(), static_cast<int>(launch.in[1].dim(0)),
                          x.dim(1), launch.attrs<UnfoldFrames>().stride, out.as<T>());
  });
}

}  // namespace millrace::ops
