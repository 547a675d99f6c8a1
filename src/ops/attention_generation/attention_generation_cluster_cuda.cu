// The kernels of attention_generation_cluster_cuda, see generation_cluster_cuda.cuh.
#include <algorithm>

#include "ops/attention_generation/generation_cluster_cuda.cuh"
#include "ops/attention_generation/generation_cluster_launch_cuda.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"

namespace millrace::ops::generation {
namespace {

/// Clusters that run at once. REQUIRES: the shared memory has been allowed.
template <typename K>
int clusters_at_once(K* kernel, unsigned blocks, int threads, int shared_bytes) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {blocks, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  device::check_cuda(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "attend_few",
                     "clusters that run at once");
  return clusters;
}

template <typename T, int kSize, int kCluster>
void launch_few(const Launch& launch, const AttentionArgs& args, Work work) {
  using S = Sizes<kSize, 1>;
  constexpr auto* kKernel = attend_few<T, kSize, kCluster>;
  constexpr int kShared = S::shared_bytes(S::kRows);
  static const int at_once = [] {
    device::check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       "attend_few", "shared memory");
    device::allow_shared("attend_few", kKernel, kShared);
    return clusters_at_once(kKernel, kCluster, S::kThreads, kShared) * kCluster;
  }();
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  // Blocks that share all tiles, if units have none; a long sequence has a piece for each of them.
  // Where units fill the multiprocessors there are no more blocks than these: idle ones would have
  // to wait for a place.
  constexpr int kMany = 96;
  const int of_units = work.lengths.sequences * args.kv_heads * kCluster;
  const int most = of_units > kMany ? kMultiprocessors : kMaxSharers;
  work.division.blocks = std::min(at_once, most) / kCluster * kCluster;
  int& pieces = work.division.wanted_pieces_if_long;
  pieces = std::clamp(work.division.blocks / args.kv_heads, 1, pieces);
  const auto blocks = static_cast<unsigned>(std::max(of_units, work.division.blocks));
  device::launch_clusters("attend_few", *launch.queue, kCluster, blocks, S::kThreads, kShared,
                          kKernel, args, work);
}

template <typename T, int kSize>
void launch_cluster(const Launch& launch, const AttentionArgs& args, const Work& work) {
  switch (cluster_size(work.lengths.sequences * args.kv_heads)) {
    case 8:
      return launch_few<T, kSize, 8>(launch, args, work);
    case 4:
      return launch_few<T, kSize, 4>(launch, args, work);
    default:
      return launch_few<T, kSize, 2>(launch, args, work);
  }
}

template <typename T>
void launch_size(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (args.head_size == 64) return launch_cluster<T, 64>(launch, args, work);
  launch_cluster<T, 128>(launch, args, work);
}

}  // namespace

void launch_clusters(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (launch.in[0].dtype == ir::DType::kBF16) {
    return launch_size<__nv_bfloat16>(launch, args, work);
  }
  launch_size<__half>(launch, args, work);
}

}  // namespace millrace::ops::generation
