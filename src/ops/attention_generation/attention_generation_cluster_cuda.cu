// The kernels of attention_generation_cluster_cuda, see generation_cluster_cuda.cuh.
#include <algorithm>
#include <array>
#include <bit>

#include "device/cuda/occupancy.h"
#include "ops/attention_generation/generation_cluster_cuda.cuh"
#include "ops/attention_generation/generation_cluster_launch_cuda.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"

namespace millrace::ops::generation {
namespace {

constexpr int kClusterSizes = 3;  // 2, 4 and 8 blocks

/// Of each size of clusters, blocks that run at once. The shared memory is allowed first.
template <typename K>
std::array<int, kClusterSizes> blocks_at_once(K* kernel, int threads, int shared_bytes) {
  device::reserve_shared("attend_few", kernel, shared_bytes);
  std::array<int, kClusterSizes> at_once{};
  for (int i = 0; i < kClusterSizes; ++i) {
    const int blocks = 2 << i;
    at_once[static_cast<size_t>(i)] =
        blocks * device::clusters_at_once("attend_few", kernel, blocks, threads, shared_bytes);
  }
  return at_once;
}

template <typename T, int kSize>
void launch_few(const Launch& launch, const AttentionArgs& args, Work work) {
  using S = Sizes<kSize, 1>;
  constexpr auto* kKernel = attend_few<T, kSize>;
  constexpr int kShared = S::shared_bytes(S::kRows);
  static const auto at_once = blocks_at_once(kKernel, S::kThreads, kShared);
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  // Blocks that share all tiles, if units have none; a long sequence has a piece for each of them.
  // Where units fill the multiprocessors there are no more blocks than these: idle ones would have
  // to wait for a place.
  constexpr int kMany = 96;
  const int units = work.lengths.sequences * args.kv_heads;
  const int cluster = cluster_size(units), of_units = units * cluster;
  const int running =
      at_once[static_cast<size_t>(std::countr_zero(static_cast<unsigned>(cluster)) - 1)];
  const int most = of_units > kMany ? kMultiprocessors : kMaxSharers;
  work.division.blocks = std::min(running, most) / cluster * cluster;
  int& pieces = work.division.wanted_pieces_if_long;
  pieces = std::clamp(work.division.blocks / args.kv_heads, 1, pieces);
  const auto blocks = static_cast<unsigned>(std::max(of_units, work.division.blocks));
  device::launch_clusters("attend_few", *launch.queue, static_cast<unsigned>(cluster), blocks,
                          S::kThreads, kShared, kKernel, args, work,
                          static_cast<unsigned>(cluster));
}

template <typename T>
void launch_size(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (args.head_size == 64) return launch_few<T, 64>(launch, args, work);
  launch_few<T, 128>(launch, args, work);
}

}  // namespace

void launch_clusters(const Launch& launch, const AttentionArgs& args, const Work& work) {
  if (launch.in[0].dtype == ir::DType::kBF16) {
    return launch_size<__nv_bfloat16>(launch, args, work);
  }
  launch_size<__half>(launch, args, work);
}

}  // namespace millrace::ops::generation
