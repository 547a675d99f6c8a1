// Up to 128 rows on Hopper's tensor cores, at the speed of memory: all blocks of the product run at
// the same time and get equally much of the weight, which is read once. Where there are too few
// tiles for that, the blocks of a cluster divide K, and add up their sums in order. The cut, and
// with it the order of a sum, follows from N, K, the GPU, and the padded number of rows.
#include <algorithm>
#include <array>
#include <limits>

#include "base/str.h"
#include "ops/matmul/matmul_cluster_cuda.cuh"
#include "ops/matmul/matmul_cuda.h"

namespace millrace::ops {
namespace {

using cluster::ClusterCut;

constexpr const char* kName = "matmul_cluster_cuda";
constexpr int kMaxClusterRows = 128;

/// Bytes of the rings. The larger takes a multiprocessor but for what small kernels need. Beside
/// the smaller one finds place what comes next, a product, too, and fetches its first weights
/// early.
constexpr int kRings[] = {216 * 1024, 104 * 1024};
constexpr int kXRing = 48 * 1024;  // of it, at most
constexpr int kMostShared = 227 * 1024;

template <typename T, int kTokens>
constexpr auto* kKernel = cluster::matmul_cluster_kernel<T, kTokens>;

template <typename T, int kTokens>
void prepare_kernel() {
  static const bool ready = [] {
    // All of the cache as shared memory: else small kernels would not find any.
    device::check_cuda(
        cudaFuncSetAttribute(kKernel<T, kTokens>, cudaFuncAttributePreferredSharedMemoryCarveout,
                             cudaSharedmemCarveoutMaxShared),
        kName, "shared memory");
    return device::allow_shared(kName, kKernel<T, kTokens>, kMostShared);
  }();
  CHECK(ready);
}

/// Clusters of so many blocks that run at the same time, whatever the product.
int most_clusters(int cluster_blocks) {
  static const std::array<int, cluster::kMostBlocks + 1> most = [] {
    constexpr int kTokens = kMaxClusterRows;
    prepare_kernel<__nv_bfloat16, kTokens>();
    std::array<int, cluster::kMostBlocks + 1> counts{};
    for (int blocks = 1; blocks <= cluster::kMostBlocks; ++blocks) {
      cudaLaunchAttribute attribute;
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
      cudaLaunchConfig_t config{};
      config.gridDim = dim3(static_cast<unsigned>(blocks));
      config.blockDim = dim3(cluster::kMostThreads);
      config.dynamicSmemBytes = kRings[0];
      config.attrs = &attribute;
      config.numAttrs = 1;
      device::check_cuda(
          cudaOccupancyMaxActiveClusters(&counts[blocks], kKernel<__nv_bfloat16, kTokens>, &config),
          kName, "clusters");
    }
    return counts;
  }();
  return most[cluster_blocks];
}

int ceil_div(int64_t a, int64_t b) {
  return static_cast<int>((a + b - 1) / b);
}

/// What the kernel makes of so many rows, at most kMaxClusterRows.
int padded_rows(int64_t rows) {
  if (rows <= 8) return 8;
  if (rows <= 32) return 32;
  return rows <= 64 ? 64 : kMaxClusterRows;
}

/// An estimate of a cut's microseconds on an H200: what a step takes, what a multiprocessor and
/// what memory can give, and adding up.
double time_of(const ClusterCut& cut, int tokens) {
  constexpr double kMemory = 4.45e6, kOneFetches = 37e3;   // bytes per microsecond
  constexpr double kLeastStep = 0.36, kProduct = 0.16e-2;  // microseconds; by warpgroup and token
  constexpr double kJoin = 1, kJoined = 60e3;              // microseconds; bytes per microsecond
  const double step = std::max(kLeastStep, cut.groups() * std::max(tokens, 64) * kProduct);
  const double weight = static_cast<double>(cut.tiles) * cut.steps * cut.weight_bytes();
  const double fetched = weight / std::min(kMemory, cut.blocks() * kOneFetches);
  const double others = cut.sums_bytes(tokens) * (1 - 1.0 / cut.split);
  return std::max(ceil_div(cut.steps, cut.split) * step, fetched) +
         (cut.split > 1 ? kJoin + others / kJoined : 0);
}

/// The product in `split` parts, in as many tiles as clusters that run at the same time. Their rows
/// are as few as that allows.
ClusterCut make_cut(int64_t weight_rows, int64_t depth, int tokens, int ring, int split,
                    int tiles) {
  ClusterCut cut{.split = split};
  cut.tile_rows = ceil_div(ceil_div(weight_rows, tiles), cluster::kTileUnit) * cluster::kTileUnit;
  cut.tiles = ceil_div(weight_rows, cut.tile_rows);
  cut.steps = ceil_div(depth, cluster::kStepDepth);
  const int x_bytes = tokens * cluster::kRowBytes;
  cut.x_stages = kXRing / x_bytes;
  cut.stages = (ring - cut.x_stages * x_bytes) / cut.weight_bytes();
  if (cut.stages < cut.x_stages) {  // more of them than of the weight are of no use
    cut.stages = ring / (cut.weight_bytes() + x_bytes);
    cut.x_stages = cut.stages;
  }
  return cut;
}

/// Whether the kernel can do it: a tile in its warpgroups, its sums in the rings' memory.
bool is_possible(const ClusterCut& cut, int tokens) {
  return cut.tile_rows <= cluster::kMostTileRows && cut.split <= cut.steps && cut.stages >= 2 &&
         cut.sums_bytes(tokens) <= cut.ring_bytes(tokens);
}

/// The best cut whose blocks all run at the same time. There is one: whole tiles are possible.
ClusterCut cut_product(int64_t weight_rows, int64_t depth, int tokens, int ring) {
  ClusterCut best;
  double best_time = std::numeric_limits<double>::infinity();
  for (int split = 1; split <= cluster::kMostBlocks; ++split) {
    const int tiles = most_clusters(split);
    if (tiles == 0) continue;
    const ClusterCut cut = make_cut(weight_rows, depth, tokens, ring, split, tiles);
    if (!is_possible(cut, tokens)) continue;
    const double time = time_of(cut, tokens);
    if (time >= best_time) continue;
    best_time = time;
    best = cut;
  }
  CHECK(best.tiles > 0, "a product that matmul_cluster_cuda_why_not refuses");
  return best;
}

template <typename T, int kTokens>
void run_tokens(const Launch& launch, const MatmulJob& job, int ring) {
  prepare_kernel<T, kTokens>();
  const ClusterCut cut = cut_product(job.weight_rows(), job.depth, kTokens, ring);
  const CUtensorMap x_map = device::make_matrix_map(
      job.x, job.rows, job.depth, kTokens, cluster::kStepDepth, device::Swizzle::k128Bytes);
  device::launch_clusters(kName, *launch.queue, static_cast<unsigned>(cut.split),
                          dim3(static_cast<unsigned>(cut.blocks())),
                          dim3(static_cast<unsigned>(cut.multiplying() + kWarp)),
                          static_cast<size_t>(cut.shared_bytes(kTokens)), kKernel<T, kTokens>, job,
                          make_weight_map(job, cut.tile_rows, cluster::kStepDepth), x_map, cut);
}

template <typename T>
void run_typed(const Launch& launch, const MatmulJob& job, int ring) {
  switch (padded_rows(job.rows)) {
    case 8:
      return run_tokens<T, 8>(launch, job, ring);
    case 32:
      return run_tokens<T, 32>(launch, job, ring);
    case 64:
      return run_tokens<T, 64>(launch, job, ring);
    default:
      return run_tokens<T, kMaxClusterRows>(launch, job, ring);
  }
}

}  // namespace

std::string matmul_cluster_cuda_why_not(const Launch& launch, const device::Properties& properties,
                                        int place) {
  if (properties.sm != 90) return "the kernel is for compute capability 9.0";
  const int64_t rows = launch.in[0].dim(0);
  if (rows > kMaxClusterRows) return str("more than ", kMaxClusterRows, " rows");
  if (std::string reason = mma_cuda_why_not(launch); !reason.empty()) return reason;
  const Tensor& weight = launch.in[1];
  if (weight.count() == 0) return "nothing to multiply";
  const int tokens = padded_rows(rows);
  const ClusterCut whole =
      make_cut(weight.dim(0), weight.dim(1), tokens, kRings[place], 1, properties.threads);
  return is_possible(whole, tokens) ? "" : str("no room for tiles of ", whole.tile_rows, " rows");
}

bool matmul_cluster_cuda_gates(const Launch& launch) {
  return launch.out[0].dim(1) % kGatedRows == 0;
}

void matmul_cluster_cuda(const Launch& launch, int place) {
  run_16_bit(launch, [&]<typename T>(T, const MatmulJob& job) {
    run_typed<T>(launch, job, kRings[place]);
  });
}

}  // namespace millrace::ops
