// Blocks over segments and parts of the ids; how long a segment is, is known on the device only.
#include <algorithm>

#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 64;  // of a segment

__global__ void __launch_bounds__(kThreads)
    sample_prompt_kernel(int32_t* history, const int32_t* ids, const int32_t* segments,
                         int64_t capacity) {
  device::wait_for_predecessor();
  device::let_successor_start();
  const int32_t* segment = segments + int64_t{4} * blockIdx.x;
  const int64_t slot = segment[0], position = segment[1], start = segment[2];
  if (slot < 0) return;
  const int64_t room = capacity - position;
  const int64_t count = segment[3] < room ? segment[3] : room;
  int32_t* to = history + slot * capacity + position;
  for (int64_t i = int64_t{blockIdx.y} * kThreads + threadIdx.x; i < count;
       i += int64_t{gridDim.y} * kThreads) {
    to[i] = ids[start + i];
  }
}

}  // namespace

void sample_prompt_cuda(const Launch& launch) {
  const int64_t segments = launch.in[2].dim(0);  // A
  const int64_t ids = launch.in[1].dim(0);       // N
  if (segments == 0 || ids == 0) return;
  const int64_t blocks = std::min(kMaxBlocks, (ids + kThreads - 1) / kThreads);
  const dim3 grid(static_cast<unsigned>(segments), static_cast<unsigned>(blocks));
  device::launch_kernel("sample_prompt_cuda", *launch.queue, grid, dim3(kThreads), 0,
                        sample_prompt_kernel, launch.out[0].as<int32_t>(),
                        launch.in[1].as<int32_t>(), launch.in[2].as<int32_t>(),
                        launch.out[0].dim(1));
}

}  // namespace millrace::ops
