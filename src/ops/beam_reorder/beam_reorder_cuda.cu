// A thread for each position; how many there are is known on the device only.
#include <algorithm>

#include "ops/beam_reorder/beam_reorder_io.h"
#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxBlocks = 64;  // of a request

/// Grid: (requests, blocks).
__global__ void __launch_bounds__(kThreads) beam_reorder_kernel(const BeamReorderIo io) {
  device::wait_for_predecessor();
  device::let_successor_start();
  const BeamRow beam = read_beam_row(io.beams, blockIdx.x);
  for (int64_t position = io.begin(beam) + int64_t{blockIdx.y} * kThreads + threadIdx.x;
       position < io.end(beam); position += int64_t{gridDim.y} * kThreads) {
    io.move(blockIdx.x, beam, position);
  }
}

}  // namespace

void beam_reorder_cuda(const Launch& launch) {
  const BeamReorderIo io(launch);
  if (io.requests == 0) return;
  const int64_t blocks = std::min(kMaxBlocks, (io.capacity + kThreads - 1) / kThreads);
  const dim3 grid(static_cast<unsigned>(io.requests), static_cast<unsigned>(blocks));
  device::launch_kernel("beam_reorder_cuda", *launch.queue, grid, dim3(kThreads), 0,
                        beam_reorder_kernel, io);
}

}  // namespace millrace::ops
