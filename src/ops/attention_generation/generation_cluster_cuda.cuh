// The kernel of attention_generation_cluster_cuda, for few sequences with one new token each: a
// cluster of blocks takes a KV head of a sequence, every warp each so many tiles of 16 keys, and
// the blocks send their sums to the one that writes them, from shared memory to shared memory.
//
// What counts is the time from the end of the kernel before to the end of this one. So old keys are
// on their way before the wait, and behind it memory is read once: all of the query, the new key
// and the angles at the same time. For .cu files.
#pragma once

#include "ops/attention_generation/generation_cluster_launch_cuda.h"
#include "ops/attention_generation/generation_kernel_cuda.cuh"
#include "ops/attention_generation/generation_token_cuda.cuh"
#include "ops/common/cluster_cuda.cuh"
#include "ops/common/hopper.cuh"

namespace millrace::ops::generation {

/// What the blocks of a cluster tell each other, and the warps of a block, beside the sums.
template <int kRows>
struct ClusterExchange {
  float2 of_block[kMostBlocks][kRows];  // largest, total; from each block
  float2 of_warp[kQuarters][kRows];
  uint64_t barrier;
};

/// Shared memory: the rings of the warps. The last stage of each is not for tiles, but has the
/// warp's place, then what every fourth block of the cluster has sent.
template <typename T, int kSize, int kCluster>
class Cluster : private Token<T, kSize, Sizes<kSize, 1>> {
 public:
  using S = Sizes<kSize, 1>;
  using Base = Token<T, kSize, S>;
  using Exchange = ClusterExchange<S::kRows>;

  __device__ Cluster(const AttentionArgs& a, const Work& work, Exchange& exchange,
                     std::byte* shared)
      : Base(a, work, Shares(), shared, shared + kPlaces, kRing, exchange.of_warp),
        x_(exchange),
        places_(shared + kPlaces),
        rank_(cluster::block_rank()),
        groups_(a.group * kGroups),
        owned_(groups_ / kCluster) {}

  /// All threads of all blocks of the cluster, with the same arguments. The sequence has one token.
  __device__ void run(int sequence, int kv_head) {
    start_barrier();
    walk_.sequence = sequence;
    walk_.unit = kv_head;
    walk_.plan = plan_sequence(w_.division, w_.lengths, sequence);
    const int first = warp() * kCluster + static_cast<int>(rank_);
#pragma unroll 1
    for (int stage = 0; stage < kTileStages; ++stage) {
      fetch(stage, first + stage * kStep);
    }
    const int last = walk_.plan.tiles - 1;
    new_key_ = this->cached_at(this->block_of(walk_, last), kv_head, walk_.plan.first_position);
    cluster::wait();
    device::wait_for_predecessor();
    const bool has_new_key = last % kStep == first;
    auto read = this->read_token(walk_.plan.row_start, kv_head, has_new_key);
    this->take_token(read, walk_, has_new_key);
    this->start_sums();
    add_tiles(first);
    this->share_sums(a_.group);
    __syncthreads();
    send();
    collect();
    wait_for_copies<0>();
  }

 private:
  using Base::a_, Base::w_, Base::lane, Base::warp, Base::kGroups;

  static constexpr int kTileStages = S::kStages - 1;
  static constexpr int kStep = kCluster * S::kWarps;  // from a warp's tile to its next one
  static constexpr int kStageBytes = S::kStage * 2, kRing = S::kStages * kStageBytes;
  static constexpr int kPlaces = kTileStages * kStageBytes;
  static constexpr int kOfThread = S::kVectors;  // groups of all rows that a thread adds up
  static_assert(Base::kPlaceBytes + (kCluster + 3) / 4 * (S::kRows * kSize * 4 / kCluster) <=
                kStageBytes);

  /// What the block `from` has sent, `owned_` groups.
  __device__ float4* received(unsigned from) const {
    std::byte* const behind_place = places_ + from % 4 * kRing + Base::kPlaceBytes;
    return reinterpret_cast<float4*>(behind_place) + from / 4 * static_cast<unsigned>(owned_);
  }
  __device__ uint32_t barrier() const { return shared_address_of(&x_.barrier); }

  /// The barrier's phase ends when all blocks have sent what this one owns.
  __device__ void start_barrier() {
    if (threadIdx.x == 0) {
      hopper::init_barrier(barrier(), 1);
      hopper::publish_barriers();
      hopper::arrive_expecting(barrier(), kCluster * (owned_ * 16 + a_.group * 8));
    }
    __syncwarp();
    cluster::arrive();
  }

  /// Starts to copy a tile, if there is one.
  __device__ void fetch(int stage, int tile) {
    if (tile < walk_.plan.tiles) {
      this->fetch_tile(stage, walk_, tile, this->block_of(walk_, tile));
    }
    commit_copies();
  }

  __device__ void add_tiles(int first) {
    const int tiles = walk_.plan.tiles;
    int stage = 0;
#pragma unroll 1
    for (int tile = first; tile < tiles; tile += kStep) {
      wait_for_copies<kTileStages - 1>();
      __syncwarp();
      if (tile == tiles - 1) append(stage);
      __syncwarp();
      this->add_stages(stage, 1, walk_.plan, tile);
      if (tile == tiles - 1) this->cache_new_key(new_key_);
      fetch(stage, tile + kTileStages * kStep);
      stage = stage + 1 == kTileStages ? 0 : stage + 1;
    }
  }

  /// The new key and value, to the tile in `stage`.
  __device__ void append(int stage) {
    auto* const tile = this->ring_ + stage * S::kStage;
    const int key = walk_.plan.first_position % kTileKeys;
    this->put_new_key([&](bool is_v, int chunk, const uint4& x) {
      auto* const to = tile + (is_v ? S::kPlane : 0) + key * S::kStride + chunk * kPart;
      *reinterpret_cast<uint4*>(to) = x;
    });
  }

  /// The block's sums, to the blocks that own them.
  __device__ void send() {
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      const int group = static_cast<int>(threadIdx.x) + i * S::kThreads;
      if (group >= groups_) break;
      const Part part = this->of_block(group / kGroups, group % kGroups * 4);
      const unsigned owner = static_cast<unsigned>(group) / static_cast<unsigned>(owned_);
      const float4* to = received(rank_) + (group - static_cast<int>(owner) * owned_);
      cluster::store_async(cluster::address_in(owner, shared_address_of(to)), part.sum,
                           cluster::address_in(owner, barrier()));
    }
    const int row = static_cast<int>(threadIdx.x) / kCluster;
    if (row >= a_.group) return;
    const unsigned owner = threadIdx.x % kCluster;
    const Part part = this->stats_of_block(row);
    cluster::store_async(cluster::address_in(owner, shared_address_of(&x_.of_block[rank_][row])),
                         float2{part.largest, part.total}, cluster::address_in(owner, barrier()));
  }

  /// Adds what all blocks have sent, and writes it. No block ends before it has all that others
  /// write into its memory, so none writes into memory of a block that has ended.
  __device__ void collect() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread >= owned_) return;
    hopper::wait_barrier(barrier(), 0);
    const int group = static_cast<int>(rank_) * owned_ + thread;
    const int row = group / kGroups;
    Part part;
#pragma unroll
    for (unsigned from = 0; from < kCluster; ++from)
      part.largest = fmaxf(part.largest, x_.of_block[from][row].x);
#pragma unroll
    for (unsigned from = 0; from < kCluster; ++from) {
      const float2 stats = x_.of_block[from][row];
      const float factor = weight_of(stats.x, part.largest);
      part.total = fmaf(stats.y, factor, part.total);
      this->add_scaled(part.sum, received(from)[thread], factor);
    }
    this->write(walk_, row, group % kGroups * 4, part);
  }

  Exchange& x_;
  std::byte* const places_;
  const unsigned rank_;
  const int groups_, owned_;  // of four elements: of all rows, and those that this block writes
  Walk walk_;
  int64_t new_key_ = 0;  // its bytes from the planes of block 0
};

/// Whether a cluster of `blocks` for each unit takes less time than even parts for all blocks.
/// Measured on an H200, heads of 128, in microseconds:
///   even parts   5 + 0.00215 tiles
///   clusters     1.2 + (0.09 longest unit + 0.11 mean unit) / blocks
__device__ inline bool suits_clusters(unsigned blocks, unsigned longest, unsigned tiles,
                                      unsigned units) {
  return longest + tiles * 5 / (units * 4) <= blocks * (42 + tiles / 42);
}

/// The way of a launch; all warps look at all sequences. offsets[s]: tiles of the sequences before
/// s, for the other way.
__device__ inline bool takes_clusters(const Division& division, const Lengths& lengths,
                                      unsigned blocks, unsigned (&offsets)[kFewSequences + 1]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  unsigned longest = 0, tiles = 0;
  bool has_one_token = true;
  if (lane < lengths.sequences) {
    const SequencePlan plan = plan_sequence(division, lengths, lane);
    tiles = static_cast<unsigned>(plan.units * plan.tiles);
    longest = plan.units > 0 ? static_cast<unsigned>(plan.tiles) : 0;
    has_one_token = plan.tokens <= 1;
  }
#pragma unroll 1
  for (int step = 1; step < kFewSequences; step *= 2) {
    const unsigned other = __shfl_up_sync(kAll, tiles, step);
    if (lane >= step) tiles += other;
    longest = max(longest, __shfl_xor_sync(kAll, longest, step));
  }
  if (threadIdx.x < kFewSequences) offsets[threadIdx.x + 1] = tiles;
  if (threadIdx.x == 0) offsets[0] = 0;
  longest = __shfl_sync(kAll, longest, 0);
  tiles = __shfl_sync(kAll, tiles, kFewSequences - 1);
  const auto units = static_cast<unsigned>(lengths.sequences * division.kv_heads);
  return __all_sync(kAll, has_one_token) && suits_clusters(blocks, longest, tiles, units);
}

/// What a block does in a cluster of kCluster.
template <typename T, int kSize, int kCluster>
__device__ __forceinline__ void attend_in_cluster(const AttentionArgs& a, const Work& work,
                                                  ClusterExchange<Sizes<kSize, 1>::kRows>& exchange,
                                                  std::byte* shared) {
  const int unit = static_cast<int>(blockIdx.x) / kCluster;
  const int sequence = unit / a.kv_heads;
  if (sequence >= work.lengths.sequences) return;
  if (work.lengths.query_length[work.lengths.first + sequence] == 0) {
    device::wait_for_predecessor();
    return;
  }
  Cluster<T, kSize, kCluster>(a, work, exchange, shared)
      .run(sequence, unit - sequence * a.kv_heads);
}

/// Grid: clusters of `blocks` for the KV heads of all sequences, and as many blocks as run at once,
/// which share all tiles evenly if that is faster, or a sequence has several tokens. One kernel for
/// all sizes of clusters has that other way once; each size has its own code in front of the wait.
template <typename T, int kSize>
__global__ void __launch_bounds__(Sizes<kSize, 1>::kThreads, Sizes<kSize, 1>::kBlocks)
    attend_few(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work,
               unsigned blocks) {
  using S = Sizes<kSize, 1>;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ union {
    Exchange<S::kRows, S::kWarps> block;
    ClusterExchange<S::kRows> cluster;
  } exchange;
  __shared__ unsigned offsets[kFewSequences + 1];
  device::let_successor_start();
  if (takes_clusters(work.division, work.lengths, blocks, offsets)) {
    // Clusters of 8 are for the shortest steps. The compiler lays out the last way without a jump.
    if (blocks == 2) return attend_in_cluster<T, kSize, 2>(a, work, exchange.cluster, shared);
    if (blocks <= 4) return attend_in_cluster<T, kSize, 4>(a, work, exchange.cluster, shared);
    return attend_in_cluster<T, kSize, 8>(a, work, exchange.cluster, shared);
  }
  __syncthreads();
  const WorkItem item = make_item(work.division, work.lengths, offsets, blockIdx.x);
  if (item.has_work == 0) {
    if (item.sharer == 0) device::wait_for_predecessor();
    return;
  }
  const Shares shares(item.tiles, item.sharers);
  Kernel<T, kSize, 1, T>(a, work, shares, exchange.block, shared).run(item);
}

}  // namespace millrace::ops::generation
