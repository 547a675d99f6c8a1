#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    merge_ids_kernel(const int32_t* ids, const int32_t* last_ids, int32_t* out, int64_t count) {
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t t = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (t >= count) return;
  const int32_t id = ids[t];
  out[t] = id >= 0 ? id : last_ids[-1 - id];
}

}  // namespace

void merge_ids_cuda(const Launch& launch) {
  const int64_t count = launch.out[0].count();  // T
  if (count == 0) return;
  device::launch_kernel("merge_ids_cuda", *launch.queue, dim3(blocks_for(count, kThreads)),
                        dim3(kThreads), 0, merge_ids_kernel, launch.in[0].as<int32_t>(),
                        launch.in[1].as<int32_t>(), launch.out[0].as<int32_t>(), count);
}

}  // namespace millrace::ops
