// Many rows: those that are greedy go first (greedy_rows_cuda.cuh). The others, and few rows of any
// kind, have a cluster of blocks each, which holds the row in its shared memory. Where a limit is a
// count or a mass (top_k, top_p, typical_p), the threshold is found by a radix search: at most
// three histograms over the ordered bits of a key, each narrowing the range to one of 2048 bins.
// All sums are of integers, so that atomic additions give the same token in any order.
#include <bit>

#include "ops/common/sampling_cluster_cuda.cuh"
#include "ops/sample_token/greedy_rows_cuda.cuh"
#include "ops/sample_token/sample_token_io.h"

namespace millrace::ops {
namespace {

constexpr int kBinBits = 11;
constexpr int kBins = 1 << kBinBits;
static_assert(kBins == 2 * kRowThreads);
constexpr uint32_t kLowestKey = 0x007fffffu;  // ordered_key(-infinity)
constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr float kBinsPerUnit = 64;  // of a logit: all bins reach to where tokens weigh nothing

struct Threshold {
  uint32_t key = 0;
  uint64_t below = 0;  // units of the smaller keys
  uint64_t limit = 0;  // that they do not exceed
};

struct TokenShared {
  RowShared row;
  alignas(16) uint2 bins[2][kBins];  // low and high half of a sum
  uint64_t below;                    // what a pick found
  int bin;
  int64_t token;  // what find_dropped found
};

/// Which tokens are kept: all limits so far. What a limit not yet applied holds keeps all.
struct Kept {
  float max;                // the largest s
  uint32_t key = 0;         // keep larger ordered keys of s,
  int first = 0;            // and this one from this token on
  float min_p = 0;          // keep weights from here on
  float mean = 0;           // of y = s - max
  uint32_t surprise = ~0u;  // keep |mean - y| up to this, as bits

  __device__ uint32_t surprise_of(float s) const {
    return std::bit_cast<uint32_t>(fabsf(mean - (s - max)));
  }
  /// The token's weight, 0 when it is dropped.
  __device__ float weight(float s, int token) const {
    const uint32_t own = ordered_key(s);
    if (own < key || (own == key && token < first)) return 0;
    const float w = sampling_exp(s - max);
    return w < min_p || surprise_of(s) > surprise ? 0 : w;
  }
};

class Choice {
 public:
  __device__ Choice(RowCluster* row, TokenShared* shared, float max)
      : row_(*row), shared_(*shared), kept_{.max = max} {}

  __device__ void keep_top_k(int64_t smaller) {
    kept_.key = find_value([](int) { return uint64_t{1}; },
                           [smaller](uint64_t) { return static_cast<uint64_t>(smaller); })
                    .key;
  }

  __device__ void keep_top_p(float top_p) {
    const Threshold found =
        find_value([this](int i) { return units_of(i); },
                   [top_p](uint64_t total) { return units_to_drop(top_p, total); });
    kept_.key = found.key;
    // Equals weigh the same; they are dropped one by one, lowest token first.
    const uint64_t each = weight_units(sampling_exp(float_of_key(found.key) - kept_.max));
    const uint64_t dropped = (found.limit - found.below) / each;
    if (dropped > 0) kept_.first = static_cast<int>(find_equal(found.key, dropped));
  }

  __device__ void keep_min_p(float min_p) { kept_.min_p = min_p; }

  __device__ void keep_typical(float mass) {
    const auto units = [this](int i) { return units_of(i); };
    const uint64_t surprise = row_.sum([this](int i) {
      const float s = row_.value(i);
      return surprise_units(s - kept_.max, kept_.weight(s, static_cast<int>(row_.token(i))));
    });
    const uint64_t total = row_.sum(units);
    kept_.mean = mean_of_units(surprise, total);
    kept_.surprise = find_threshold(
                         {.limit = units_to_keep(mass, total) - 1}, kInfinityBits,
                         [this](int i) { return kept_.surprise_of(row_.value(i)); }, units)
                         .key;
  }

  /// The token in all lanes of the one warp that has it, -1 in all others.
  __device__ int64_t draw(const SamplingRow& row) {
    return row_.locate([this](int i) { return units_of(i); },
                       [&row](uint64_t total) { return draw_units(row, total); });
  }

 private:
  __device__ uint64_t units_of(int i) const {
    return weight_units(kept_.weight(row_.value(i), static_cast<int>(row_.token(i))));
  }

  /// The token with this key before which there are `before` others with it.
  __device__ int64_t find_equal(uint32_t key, uint64_t before) {
    const int64_t token = row_.locate(
        [&](int i) { return ordered_key(row_.value(i)) == key ? uint64_t{1} : uint64_t{0}; },
        [before](uint64_t) { return before; });
    if (token >= 0 && row_.lane() < kRowBlocks) {
      *row_.in_block(&shared_.token, row_.lane()) = token;
    }
    row_.sync();
    return shared_.token;
  }

  /// The bin of a logit in a histogram of equal widths, below the largest; the lowest bin has all
  /// the rest. A larger logit has no lower bin.
  __device__ int bin_of(float s) const {
    const float distance = (kept_.max - s) * kBinsPerUnit;
    return distance < kBins - 1 ? kBins - 1 - static_cast<int>(distance) : 0;
  }

  /// The bits of a float in front are much the same in all logits, so that most threads would add
  /// to few bins: a histogram over the logits themselves comes first. Where it finds a bin, what is
  /// in there is searched by bits. `limit_of` the sum over the row.
  template <typename UnitsOf, typename LimitOf>
  __device__ Threshold find_value(const UnitsOf& units_of, const LimitOf& limit_of) {
    uint2* bins = clear_bins();
    for (int i = row_.lane(); i < row_.count(); i += kWarp)
      add(bins + bin_of(row_.value(i)), units_of(i));
    row_.sync();
    const uint64_t limit = pick(bins, 0, limit_of);
    const int bin = shared_.bin;
    // The bin's edges, a little apart from where rounding could have put them.
    const float slack = (fabsf(kept_.max) + 32) * 0x1p-21F;
    const float upper = kept_.max - static_cast<float>(kBins - 1 - bin) / kBinsPerUnit;
    const uint32_t low = bin == 0 ? kLowestKey : ordered_key(upper - 1 / kBinsPerUnit - slack);
    const uint32_t high = min(ordered_key(upper + slack), ordered_key(kept_.max));
    return find_threshold(
        {low, shared_.below, limit}, high,
        [=, this](int i) {
          const float s = row_.value(i);
          const uint32_t key = ordered_key(s);
          return key >= low && key <= high && bin_of(s) == bin ? key : 0;
        },
        units_of);
  }

  /// The smallest key at which the units of the keys up to it exceed found.limit. REQUIRES: there
  /// is one; keys with units, but for those counted in found.below, lie in [found.key, high]. Keys
  /// below found.key are left out.
  template <typename KeyOf, typename UnitsOf>
  __device__ Threshold find_threshold(Threshold found, uint32_t high, const KeyOf& key_of,
                                      const UnitsOf& units_of) {
    for (int shift = kWarp - __clz(static_cast<int>(high - found.key)); shift > 0;) {
      const int above = shift;  // keys at work: those that differ from found.key below this bit
      shift = max(0, shift - kBinBits);
      uint2* bins = clear_bins();
      for (int i = row_.lane(); i < row_.count(); i += kWarp) {
        const uint32_t key = key_of(i), distance = key - found.key;
        if (key < found.key || uint64_t{distance} >> above != 0) continue;
        add(bins + (distance >> shift), units_of(i));
      }
      row_.sync();
      pick(bins, found.below, [&](uint64_t) { return found.limit; });
      found.key += static_cast<uint32_t>(shared_.bin) << shift;
      found.below = shared_.below;
    }
    return found;
  }

  __device__ uint2* clear_bins() {
    bins_turn_ ^= 1;
    uint2* bins = shared_.bins[bins_turn_];
    reinterpret_cast<uint4*>(bins)[threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    return bins;
  }

  /// 64 bits by two native additions of 32: whoever wraps the low half carries.
  __device__ static void add(uint2* bin, uint64_t units) {
    if (units == 0) return;
    const auto low = static_cast<uint32_t>(units);
    const uint32_t carry = atomicAdd(&bin->x, low) + low < low ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(units >> 32) + carry;
    if (high != 0) atomicAdd(&bin->y, high);
  }

  /// Into shared_: the first bin up to and with which `below` and the bins of all blocks exceed
  /// limit_of(all of these), and the sum before it. Each block does the same. Returns the limit.
  template <typename LimitOf>
  __device__ uint64_t pick(uint2* bins, uint64_t below, const LimitOf& limit_of) {
    uint64_t even = 0, odd = 0;  // a thread has two bins
    const int pair = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
      const uint4 part = row_.in_block(reinterpret_cast<uint4*>(bins), r)[pair];
      even += uint64_t{part.y} << 32 | part.x;
      odd += uint64_t{part.w} << 32 | part.z;
    }
    const uint64_t running = warp_running_sum(even + odd);
    const uint64_t own = __shfl_sync(0xffffffffu, running, kWarp - 1);
    const uint64_t of_warp = row_.of_warps(own)[row_.lane()];
    const uint64_t before =
        below + warp_sum(row_.lane() < row_.warp() ? of_warp : 0) + running - even - odd;
    const uint64_t limit = limit_of(below + warp_sum(of_warp));
    if (before <= limit && limit < before + even + odd) {
      const bool is_odd = before + even <= limit;
      shared_.bin = 2 * pair + (is_odd ? 1 : 0);
      shared_.below = before + (is_odd ? even : 0);
    }
    __syncthreads();
    return limit;
  }

  RowCluster& row_;
  TokenShared& shared_;
  Kept kept_;
  int bins_turn_ = 0;
};

/// The largest logit of a row, and whether that allows a choice.
__device__ SamplingStatus status_of(uint64_t best, float temperature) {
  const SamplingStatus status = status_of_ranked(best);
  if (status != kSamplingOk) return status;
  return status_of_max(float_of_key(key_of_ranked(best)) / temperature);
}

/// Row `l` by the whole cluster.
__device__ void choose(const SampleTokenIo& io, const RowSplit& split, int l, float* kept,
                       TokenShared* shared) {
  const SamplingRow row = row_of(io, l);
  const bool is_first = blockIdx.x % kRowBlocks == 0 && threadIdx.x == 0;
  if (row.slot < 0) {
    if (is_first) io.put(row, l, 0, kSamplingOk);
    return;
  }
  const bool draws = (row.flags & kSamplingDraws) != 0;
  const float temperature = draws ? row.temperature : 1;
  RowCluster cluster(split, &shared->row, kept);
  const uint64_t best = cluster.load(split, io.logits_of(row, l), temperature, draws);
  const SamplingStatus status = status_of(best, temperature);
  if (status != kSamplingOk || !draws) {
    if (is_first) io.put(row, l, token_of_ranked(best), status);
    return;
  }
  Choice choice(&cluster, shared, float_of_key(key_of_ranked(best)) / temperature);
  if (row.top_k > 0 && row.top_k < io.vocab) choice.keep_top_k(io.vocab - row.top_k);
  if (row.top_p < 1) choice.keep_top_p(row.top_p);
  if (row.min_p > 0) choice.keep_min_p(row.min_p);
  if (row.typical_p < 1) choice.keep_typical(row.typical_p);
  const int64_t token = choice.draw(row);
  if (token >= 0 && cluster.lane() == 0) {
    io.put(row, l, static_cast<int32_t>(token), kSamplingOk);
  }
}

/// Grid: kRowBlocks per row, or for many rows as many clusters as run at a time; then rows that
/// draw only, `kDrawnOnly`. A row's cluster waits until all blocks are done with the row before.
template <bool kDrawnOnly>
__global__ void MILLRACE_ROW_CLUSTER __launch_bounds__(kRowThreads)
    sample_token_kernel(SampleTokenIo io, RowSplit split) {
  extern __shared__ float4 kept[];
  __shared__ TokenShared shared;
  device::wait_for_predecessor();
  device::let_successor_start();
  const int own = static_cast<int>(blockIdx.x) / kRowBlocks;
  if constexpr (!kDrawnOnly) {
    choose(io, split, own, reinterpret_cast<float*>(kept), &shared);
    return;
  }
  const int clusters = static_cast<int>(gridDim.x) / kRowBlocks;
  const int count = static_cast<int>(io.count);
  for (int first = own; first < count; first += kWarp * clusters) {
    const int l = first + static_cast<int>(threadIdx.x) % kWarp * clusters;
    unsigned left = __ballot_sync(0xffffffffu, l < count && !is_greedy(row_of(io, l)));
    for (; left != 0; left &= left - 1) {
      choose(io, split, first + (__ffs(static_cast<int>(left)) - 1) * clusters,
             reinterpret_cast<float*>(kept), &shared);
    }
  }
}

template <bool kDrawnOnly>
void start_clusters(const Launch& launch, const SampleTokenIo& io, const RowSplit& split,
                    int64_t clusters) {
  [[maybe_unused]] static const bool is_allowed =
      device::allow_shared("sample_token_cuda", sample_token_kernel<kDrawnOnly>, kKeptBytes);
  device::launch_kernel("sample_token_cuda", *launch.queue,
                        dim3(static_cast<unsigned>(clusters * row_blocks())), dim3(kRowThreads),
                        split.shared_bytes(), sample_token_kernel<kDrawnOnly>, io, split);
}

/// Clusters that this GPU runs at a time: fewer than its size tells, where a group of
/// multiprocessors is not a multiple of a cluster. More rows go the way of many.
int64_t clusters_at_once() {
  if (!device::has_clusters()) return device::multiprocessors();
  static const int count = [] {
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {kRowBlocks, 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(kRowBlocks);
    config.blockDim = dim3(kRowThreads);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    device::check_cuda(
        cudaOccupancyMaxActiveClusters(&clusters, sample_token_kernel<true>, &config),
        "sample_token_cuda", "clusters");
    return std::max(clusters, 1);
  }();
  return count;
}

/// Blocks for each row, so that one round takes them all where it can.
unsigned greedy_blocks(int64_t rows) {
  if (!device::has_clusters()) return 1;
  const int64_t each = device::multiprocessors() / rows;
  return each >= 4 ? 4 : each >= 2 ? 2 : 1;
}

}  // namespace

void sample_token_cuda(const Launch& launch) {
  const SampleTokenIo io(launch);
  if (io.count == 0) return;
  RowSplit split(io.vocab);
  split.restrict_to(io.logits);
  split.restrict_to(io.adjusted);
  const int64_t clusters = clusters_at_once();
  if (io.count <= clusters) {
    start_clusters<false>(launch, io, split, io.count);
    return;
  }
  const unsigned blocks = greedy_blocks(io.count);
  device::launch_clusters("sample_token_cuda", *launch.queue, blocks,
                          dim3(static_cast<unsigned>(io.count) * blocks), dim3(kGreedyThreads), 0,
                          greedy_rows_kernel, io, split);
  start_clusters<true>(launch, io, split, clusters);
}

}  // namespace millrace::ops
