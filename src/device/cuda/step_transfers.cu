#include <algorithm>

#include "device/cuda/launch.h"
#include "device/cuda/step_transfers.h"

namespace millrace::device {
namespace {

constexpr unsigned kUnitBytes = 16;  // what a thread copies at a time
constexpr unsigned kUploadThreads = 128, kDownloadThreads = 512;
constexpr unsigned kMaxUploadBlocks = 256;

struct Parts {
  struct Part {
    uint4* target;
    const uint4* source;
    unsigned end;  // units of all parts up to and with this one
  };
  Part at[kMaxTransferParts];
  unsigned units;
};

Parts in_units(std::span<const TransferPart> parts) {
  Parts made{};
  for (size_t i = 0; i < parts.size(); ++i) {
    made.units += static_cast<unsigned>((parts[i].bytes + kUnitBytes - 1) / kUnitBytes);
    made.at[i] = {static_cast<uint4*>(parts[i].target), static_cast<const uint4*>(parts[i].source),
                  made.units};
  }
  return made;
}

__device__ int64_t global_time_ns() {
  int64_t time = 0;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

/// Copies units first, first + step, ...
__device__ void copy_units(const Parts& parts, unsigned first, unsigned step) {
  for (unsigned unit = first; unit < parts.units; unit += step) {
    int p = 0;
    unsigned begin = 0;
    while (unit >= parts.at[p].end)
      begin = parts.at[p++].end;
    parts.at[p].target[unit - begin] = parts.at[p].source[unit - begin];
  }
}

/// Kernels behind this one may read what it brings before they wait for their predecessor (the rule
/// in launch.h). So it lets no successor start, which then starts when all its blocks have ended,
/// and a thread ends when the device sees its stores.
__global__ void __launch_bounds__(kUploadThreads)
    upload_kernel(const __grid_constant__ Parts parts, int64_t* begun_ns) {
  const unsigned thread = blockIdx.x * kUploadThreads + threadIdx.x;
  if (thread == 0) *begun_ns = global_time_ns();
  copy_units(parts, thread, gridDim.x * kUploadThreads);
  __threadfence();
}

/// One block, so that its end is that of the step. The host sees what it wrote when the kernel has
/// ended.
__global__ void __launch_bounds__(kDownloadThreads)
    download_kernel(const __grid_constant__ Parts parts, int64_t* ended_ns) {
  wait_for_predecessor();
  copy_units(parts, threadIdx.x, kDownloadThreads);
  __syncthreads();
  if (threadIdx.x == 0) *ended_ns = global_time_ns();
}

}  // namespace

// Without programmatic dependent launch: the kernel begins when all before have ended.
void begin_step_cuda(const Queue& queue, std::span<const TransferPart> parts, int64_t* begun_ns) {
  const Parts units = in_units(parts);
  const unsigned blocks =
      std::clamp((units.units + kUploadThreads - 1) / kUploadThreads, 1U, kMaxUploadBlocks);
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = kUploadThreads;
  config.stream = stream_of(queue);
  check_cuda(cudaLaunchKernelEx(&config, upload_kernel, units, begun_ns), "upload_kernel",
             str(blocks, " blocks"));
}

void end_step_cuda(const Queue& queue, std::span<const TransferPart> parts, int64_t* ended_ns) {
  launch_kernel("download_kernel", queue, 1, kDownloadThreads, 0, download_kernel, in_units(parts),
                ended_ns);
}

}  // namespace millrace::device
