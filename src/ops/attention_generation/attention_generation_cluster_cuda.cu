// The kernels of attention_generation_cluster_cuda, see generation_cluster_cuda.cuh.
#include <algorithm>

#include "ops/attention_generation/generation_cluster_cuda.cuh"
#include "ops/attention_generation/generation_cluster_launch_cuda.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"

namespace millrace::ops::generation {
namespace {

template <typename T, int kSize, int kCluster>
void launch_few(const Launch& launch, const AttentionArgs& args, Work work) {
  using S = Sizes<kSize, 1>;
  constexpr auto* kKernel = attend_few<T, kSize, kCluster>;
  static const bool allowed = [] {
    device::check_cuda(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                            cudaSharedmemCarveoutMaxShared),
                       "attend_few", "shared memory");
    return device::allow_shared("attend_few", kKernel, S::shared_bytes(S::kRows));
  }();
  static_cast<void>(allowed);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  work.division.blocks = kSharers / kCluster * kCluster;
  const int units = work.lengths.sequences * args.kv_heads;
  const auto blocks = static_cast<unsigned>(std::max(units * kCluster, work.division.blocks));
  device::launch_clusters("attend_few", *launch.queue, kCluster, blocks, S::kThreads,
                          static_cast<size_t>(S::shared_bytes(S::kRows)), kKernel, args, work);
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
