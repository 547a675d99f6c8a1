// Kernel launches with their errors checked and programmatic dependent launch (PDL): a kernel may
// start while the one before it drains. For .cu files.
//
// The rule that makes this safe: a thread calls wait_for_predecessor() before it touches memory
// that another kernel of the step reads or writes. Weights are constant and may be fetched before,
// and so may what begin_step() brought (lengths, block tables) or is of an earlier step (old keys):
// no overlap crosses begin_step(), says cuda/step_transfers.cu. let_successor_start() may be called
// at any time; the successor waits for this kernel's end in its own wait.
//
// GPUs before Hopper (compute capability 9.0) have neither PDL nor clusters: there a kernel begins
// when the one before it has ended.
#pragma once

#include <algorithm>
#include <string>

#include <cuda_runtime.h>

#include "base/str.h"
#include "device/cuda/check_cuda.h"
#include "device/device.h"

namespace millrace::device {

__device__ inline void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline void let_successor_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

inline cudaStream_t stream_of(const Queue& queue) {
  return static_cast<cudaStream_t>(queue.stream);
}

inline std::string to_string(dim3 d) {
  return str(d.x, "x", d.y, "x", d.z);
}

/// Of the device that is current.
inline int current_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessors() {
  static const int count = current_attribute(cudaDevAttrMultiProcessorCount);
  return count;
}

inline bool has_clusters() {
  static const bool has = current_attribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  return has;
}

/// Most shared memory of a block, static and dynamic.
inline int shared_bytes_of_block() {
  static const int bytes = current_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return bytes;
}

/// How blocks of a launch lie on the GPU.
struct Placement {
  unsigned cluster = 1;      // so many neighbours along x, at most 8, in a cluster
  bool all_at_once = false;  // or not at all: a launch of more blocks than fit is an error
};

/// launch_kernel() with a placement; grid.x is a multiple of the cluster.
template <typename... P, typename... A>
void launch_placed(const char* name, const Queue& queue, const Placement& placement, dim3 grid,
                   dim3 block, size_t shared_bytes, void (*kernel)(P...), const A&... arguments) {
  cudaLaunchAttribute attributes[3]{};
  unsigned count = 0;
  if (has_clusters()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    if (placement.cluster > 1) {
      attributes[count].id = cudaLaunchAttributeClusterDimension;
      attributes[count++].val.clusterDim = {placement.cluster, 1, 1};
    }
  }
  if (placement.all_at_once) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream_of(queue);
  config.attrs = attributes;
  config.numAttrs = count;
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
  if (status != cudaSuccess) {
    check_cuda(status, name,
               str("grid ", to_string(grid), ", block ", to_string(block), ", ", shared_bytes,
                   " bytes of shared memory"));
  }
}

/// launch_kernel() for blocks in clusters of `cluster` neighbours along x.
template <typename... P, typename... A>
void launch_clusters(const char* name, const Queue& queue, unsigned cluster, dim3 grid, dim3 block,
                     size_t shared_bytes, void (*kernel)(P...), const A&... arguments) {
  launch_placed(name, queue, {.cluster = cluster}, grid, block, shared_bytes, kernel, arguments...);
}

/// Enqueues `kernel` on the queue's stream; `name` is the kernel's, for messages. Shared memory
/// above 48 KiB must have been allowed with allow_shared().
template <typename... P, typename... A>
void launch_kernel(const char* name, const Queue& queue, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(P...), const A&... arguments) {
  launch_placed(name, queue, {}, grid, block, shared_bytes, kernel, arguments...);
}

/// Lets a kernel use up to `bytes` of dynamic shared memory, or all that a block has, if that is
/// less. Call once per kernel (static local).
template <typename K>
bool allow_shared(const char* name, K* kernel, int bytes) {
  if (bytes > 48 * 1024) {
    cudaFuncAttributes attributes{};
    check_cuda(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)), name,
               "attributes");
    const auto own = static_cast<int>(attributes.sharedSizeBytes);
    bytes = std::min(bytes, shared_bytes_of_block() - own);
  }
  check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             name, "shared memory");
  return true;
}

}  // namespace millrace::device
