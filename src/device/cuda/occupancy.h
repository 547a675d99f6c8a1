// What of a kernel runs at once on a GPU. For .cu files.
#pragma once

#include <cuda_runtime.h>

#include "device/cuda/launch.h"

namespace millrace::device {

/// allow_shared(), and all of the first-level cache as shared memory: else small kernels find none
/// beside this one, or fewer of its blocks fit. Call once per kernel (static local).
template <typename K>
bool reserve_shared(const char* name, K* kernel, int bytes) {
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                  cudaSharedmemCarveoutMaxShared),
             name, "shared memory");
  return allow_shared(name, kernel, bytes);
}

/// Clusters of so many blocks that run at once: fewer than the GPU's size tells, where a group of
/// multiprocessors is not a multiple of a cluster. REQUIRES: the shared memory has been allowed.
template <typename K>
int clusters_at_once(const char* name, K* kernel, int blocks, int threads, int shared_bytes) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  check_cuda(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), name,
             "clusters that run at once");
  return clusters;
}

}  // namespace millrace::device
