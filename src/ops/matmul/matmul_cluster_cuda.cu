// Up to 128 rows on Hopper's tensor cores, at the speed of memory: all blocks of the product run at
// the same time and get equally much of the weight, which is read once. Where there are too few
// tiles for that, the blocks of a cluster divide K, and add up their sums in order. The cut, and
// with it the order of a sum, follows from N, K, the GPU, and the padded number of rows.
#include "ops/matmul/matmul_cluster_cuda.cuh"

#include <algorithm>
#include <array>
#include <limits>

#include "base/str.h"
#include "ops/matmul/matmul_cuda.h"

namespace millrace::ops {
namespace {

using cluster::ClusterCut;

constexpr const char* kName = "matmul_cluster_cuda";
constexpr int kMaxClusterRows = 128;

/// Bytes of the ring. The larger takes a multiprocessor but for what small kernels need. Beside the
/// smaller one finds place what comes next, a product, too, and fetches its first weights early.
constexpr int kRings[] = {200 * 1024, 104 * 1024};
constexpr int kMostMates = 2;
constexpr int kAheadBytes = 64 * 1024;  // of the weight, that a block asks for behind the ring

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
    return device::allow_shared(kName, kKernel<T, kTokens>, 208 * 1024);
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
      device::check_cuda(cudaOccupancyMaxActiveClusters(&counts[blocks],
                                                        kKernel<__nv_bfloat16, kTokens>, &config),
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

/// Whether the ring's memory has room for the sums of a tile.
bool sums_fit(const ClusterCut& cut, int tokens, int ring) {
  const int stage = cut.stage_bytes(tokens);
  return cut.sums_bytes(tokens) <= ring / stage * stage;
}

/// An estimate of a cut's microseconds on an H200: what a multiprocessor alone can fetch, what
/// memory gives to all, and adding up.
double time_of(const ClusterCut& cut, int tokens) {
  constexpr double kMemory = 4.6e6, kWeightAlone = 66e3, kAlone = 80e3;  // bytes per microsecond
  constexpr double kJoin = 1, kJoined = 60e3;  // microseconds; bytes per microsecond
  const double step = std::max(cut.weight_bytes() / kWeightAlone, cut.stage_bytes(tokens) / kAlone);
  const double longest = ceil_div(cut.steps, cut.split) * step;
  const double weight = static_cast<double>(cut.tiles) * cut.steps * cut.weight_bytes();
  const double others = cut.sums_bytes(tokens) * (1 - 1.0 / cut.split);
  return std::max(longest, weight / kMemory) + (cut.split > 1 ? kJoin + others / kJoined : 0);
}

/// Rows of a tile where there are at most so many tiles.
int tile_rows_for(int64_t weight_rows, int64_t tiles) {
  return ceil_div(ceil_div(weight_rows, tiles), cluster::kTileUnit) * cluster::kTileUnit;
}

/// As many tiles as clusters of `mates` tiles, each in `split` parts, at the same time can have.
/// Their rows are as few as that allows.
ClusterCut make_cut(int64_t weight_rows, int64_t depth, int tokens, int ring, int split, int mates) {
  const int64_t most = int64_t{most_clusters(split * mates)} * mates;
  ClusterCut cut{.split = split, .mates = mates};
  cut.tile_rows = tile_rows_for(weight_rows, most);
  cut.tiles = ceil_div(weight_rows, cut.tile_rows);
  cut.steps = ceil_div(depth, cluster::kStepDepth);
  cut.stages = ring / cut.stage_bytes(tokens);
  cut.ahead = kAheadBytes / cut.weight_bytes();
  return cut;
}

/// The best cut whose blocks all run at the same time. Without tiles if there is none.
ClusterCut cut_product(int64_t weight_rows, int64_t depth, int tokens, int ring) {
  ClusterCut best;
  double best_time = std::numeric_limits<double>::infinity();
  for (int mates = 1; mates <= kMostMates && tokens % (8 * mates) == 0; mates *= 2) {
    for (int split = 1; split * mates <= cluster::kMostBlocks; ++split) {
      const ClusterCut cut = make_cut(weight_rows, depth, tokens, ring, split, mates);
      if (cut.tile_rows > cluster::kMostTileRows || split > cut.steps) continue;
      if (!sums_fit(cut, tokens, ring)) continue;
      const double time = time_of(cut, tokens);
      if (time >= best_time) continue;
      best_time = time;
      best = cut;
    }
  }
  return best;
}

template <typename T, int kTokens>
void run_tokens(const Launch& launch, const MatmulJob& job, int ring) {
  prepare_kernel<T, kTokens>();
  const ClusterCut cut = cut_product(job.weight_rows(), job.depth, kTokens, ring);
  CHECK(cut.tiles > 0, "a product that matmul_cluster_cuda_why_not refuses");
  const CUtensorMap x_map = device::make_matrix_map(job.x, job.rows, job.depth, kTokens / cut.mates,
                                                    cluster::kStepDepth, device::Swizzle::k128Bytes);
  device::launch_clusters(kName, *launch.queue, static_cast<unsigned>(cut.cluster_blocks()),
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
  const ClusterCut cut{.tile_rows = tile_rows_for(launch.in[1].dim(0), properties.threads)};
  if (cut.tile_rows > cluster::kMostTileRows || !sums_fit(cut, padded_rows(rows), kRings[place]))
    return str("tiles of ", cut.tile_rows, " weight rows are too large");
  return mma_cuda_why_not(launch);
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
