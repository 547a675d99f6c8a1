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
#include "ops/common/cluster_cuda.cuh"
#include "ops/common/hopper.cuh"

namespace millrace::ops::generation {

/// What the blocks of a cluster tell each other, and the warps of a block, beside the sums.
template <int kCluster, int kRows>
struct ClusterExchange {
  float2 of_block[kCluster][kRows];  // largest, total; from each block
  float2 of_warp[kQuarters][kRows];
  uint64_t barrier;
};

/// Shared memory: the rings of the warps, whose last stages are not for tiles:
///   of warp 0         queries of the warps [4, 8, kQueryStride]
///   of warps 1 and 2  sums of the warps [4, 8, kSumStride]
///   of warp 3         sums from the blocks of the cluster [blocks, owned groups of 4]
template <typename T, int kSize, int kCluster>
class Cluster : private Tiles<T, kSize, 1, T> {
 public:
  using Base = Tiles<T, kSize, 1, T>;
  using typename Base::S;
  using Exchange = ClusterExchange<kCluster, S::kRows>;

  __device__ Cluster(const AttentionArgs& a, const Work& work, Exchange& exchange,
                     std::byte* shared)
      : Base(a, work, Shares(), shared),
        x_(exchange),
        shared_(shared),
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
    locate_new_key(first);
    cluster::wait();
    device::wait_for_predecessor();
    take_queries();
    this->start_sums();
    add_tiles(first);
    share_sums();
    __syncthreads();
    send();
    collect();
    wait_for_copies<0>();
  }

 private:
  using Base::a_, Base::w_, Base::lane, Base::warp;
  using Base::largest_, Base::total_, Base::sums_;

  static constexpr int kTileStages = S::kStages - 1;
  static constexpr int kStep = kCluster * S::kWarps;  // from a warp's tile to its next one
  static constexpr int kStageBytes = S::kStage * 2;
  static constexpr int kGroups = kSize / 4;          // of four elements of a row
  static constexpr int kOfThread = kSize * 2 / 128;  // groups of all rows that a thread adds up
  /// A lane rotates 8 elements and those half a head away; so many lanes have a row.
  static constexpr int kHalf = kSize / 2, kRowLanes = kHalf / kPart;
  static constexpr int kQueryParts = S::kRows * kRowLanes / kWarp;
  static_assert(S::kRows * S::kQueryStride * 2 * S::kWarps <= kStageBytes);
  static_assert(S::kSumBytes * 2 <= kStageBytes);
  static_assert(S::kRows * kSize * 4 <= kStageBytes);

  /// Eight elements of a head and the eight half a head away.
  struct Half {
    uint4 x, y;
  };

  /// The last stage of a warp's ring.
  __device__ std::byte* behind_tiles(int of_warp) const {
    return shared_ + (of_warp * S::kStages + kTileStages) * kStageBytes;
  }
  __device__ uint16_t* queries() const {
    return reinterpret_cast<uint16_t*>(behind_tiles(0)) + warp() * S::kRows * S::kQueryStride;
  }
  __device__ float* sums_of(int of_warp) const {
    return reinterpret_cast<float*>(behind_tiles(1 + of_warp / 2) + of_warp % 2 * S::kSumBytes);
  }
  /// What the block `from` has sent, `owned_` groups.
  __device__ float4* received(unsigned from) const {
    return reinterpret_cast<float4*>(behind_tiles(3)) + from * static_cast<unsigned>(owned_);
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

  /// Where the new key goes, if this warp has the last tile.
  __device__ void locate_new_key(int first) {
    const int last = walk_.plan.tiles - 1;
    has_new_key_ = last % kStep == first;
    const int key = walk_.plan.first_position;
    const int slot = key - (key >> w_.block_shift << w_.block_shift);
    new_key_ = int64_t{this->block_of(walk_, last)} * a_.block_bytes +
               (int64_t{walk_.unit} * a_.tokens_per_block + slot) * (kSize * 2);
  }

  __device__ static Half load_half(const uint16_t* from) {
    return {__ldcg(reinterpret_cast<const uint4*>(from)),
            __ldcg(reinterpret_cast<const uint4*>(from + kHalf))};
  }

  /// The angles of this lane's elements.
  __device__ void load_angles(const float* from) {
#pragma unroll
    for (int i = 0; i < kPart; i += 4) {
      const float4 c = __ldcg(reinterpret_cast<const float4*>(from + i));
      const float4 s = __ldcg(reinterpret_cast<const float4*>(from + kHalf + i));
      const float cosines[4] = {c.x, c.y, c.z, c.w}, sines[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        cosine_[i + j] = cosines[j];
        sine_[i + j] = sines[j];
      }
    }
  }

  __device__ void rotate(Half& half) const {
    constexpr bool kBF16 = std::is_same_v<T, __nv_bfloat16>;
    uint32_t x[4] = {half.x.x, half.x.y, half.x.z, half.x.w};
    uint32_t y[4] = {half.y.x, half.y.y, half.y.z, half.y.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 a = unpack_pair(x[i], kBF16), b = unpack_pair(y[i], kBF16);
      const float c[2] = {cosine_[2 * i], cosine_[2 * i + 1]};
      const float s[2] = {sine_[2 * i], sine_[2 * i + 1]};
      x[i] = pack_as(rotated(a.x, c[0], b.x, -s[0]), rotated(a.y, c[1], b.y, -s[1]), kBF16);
      y[i] = pack_as(rotated(b.x, c[0], a.x, s[0]), rotated(b.y, c[1], a.y, s[1]), kBF16);
    }
    half = {{x[0], x[1], x[2], x[3]}, {y[0], y[1], y[2], y[3]}};
  }

  /// Rotated queries to registers, as operands of products; and what is new, if it is this warp's:
  /// K to the first kRowLanes lanes, V to the next ones. All is read at once.
  __device__ void take_queries() {
    const Appended& appended = w_.appended;
    const int64_t row = walk_.plan.row_start;
    const int d = lane() % kRowLanes * kPart;
    const auto at = [&](const void* x, int64_t stride, int head) {
      return static_cast<const uint16_t*>(x) + row * stride + head * kSize + d;
    };
    Half queries_of_lane[kQueryParts];
#pragma unroll
    for (int i = 0; i < kQueryParts; ++i) {
      const int head = i * (kWarp / kRowLanes) + lane() / kRowLanes;
      if (head < a_.group) {
        queries_of_lane[i] = load_half(at(a_.q, w_.q_stride, walk_.unit * a_.group + head));
      }
    }
    load_angles(appended.angles + row * kSize + d);
    if (has_new_key_ && lane() < 2 * kRowLanes) {
      const bool is_v = lane() >= kRowLanes;
      new_half_ = load_half(at(is_v ? appended.v : appended.k,
                               is_v ? appended.v_stride : appended.k_stride, walk_.unit));
    }
    uint16_t* const to = queries();
#pragma unroll
    for (int i = 0; i < kQueryParts; ++i) {
      const int head = i * (kWarp / kRowLanes) + lane() / kRowLanes;
      if (head >= a_.group) continue;
      rotate(queries_of_lane[i]);
      put_half(to + head * S::kQueryStride + d, queries_of_lane[i]);
    }
    __syncwarp();
    this->load_queries(walk_, a_.group, to);
  }

  __device__ static void put_half(void* at, const Half& half) {
    auto* const to = static_cast<uint16_t*>(at);
    *reinterpret_cast<uint4*>(to) = half.x;
    *reinterpret_cast<uint4*>(to + kHalf) = half.y;
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
      this->add_stage(stage, walk_.plan, tile);
      fetch(stage, tile + kTileStages * kStep);
      stage = stage + 1 == kTileStages ? 0 : stage + 1;
    }
  }

  /// The new key and value, to the tile in `stage` and to the cache.
  __device__ void append(int stage) {
    if (lane() >= 2 * kRowLanes) return;
    const bool is_v = lane() >= kRowLanes;
    const int d = lane() % kRowLanes * kPart;
    const int key = walk_.plan.first_position % kTileKeys;
    Half half = new_half_;
    if (!is_v) rotate(half);
    put_half(this->ring_ + stage * S::kStage + (is_v ? S::kPlane : 0) + key * S::kStride + d, half);
    std::byte* const plane = is_v ? w_.appended.v_plane : w_.appended.k_plane;
    put_half(reinterpret_cast<uint16_t*>(plane + new_key_) + d, half);
  }

  /// This warp's sums, to the block's other warps.
  __device__ void share_sums() {
    const int row = lane() % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float total = total_[0][i];
#pragma unroll
      for (int step = 4; step < kWarp; step *= 2)
        total += __shfl_xor_sync(kAll, total, step);
      if (lane() < 4) x_.of_warp[warp()][row + i] = {largest_[0][i], total};
    }
    if (row >= a_.group) return;
    float* const to = sums_of(warp()) + row * S::kSumStride;
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        to[i % 2 * S::kSumStride + this->element(d, i)] = sums_[0][d][i];
    }
  }

  /// The block's sums, to the blocks that own them.
  __device__ void send() {
#pragma unroll
    for (int i = 0; i < kOfThread; ++i) {
      const int group = static_cast<int>(threadIdx.x) + i * S::kThreads;
      if (group >= groups_) break;
      const Part part = of_block(group / kGroups, group % kGroups * 4);
      const unsigned owner = static_cast<unsigned>(group) / static_cast<unsigned>(owned_);
      float4* const to = received(rank_) + (group - static_cast<int>(owner) * owned_);
      cluster::store_async(cluster::address_in(owner, shared_address_of(to)), part.sum,
                           cluster::address_in(owner, barrier()));
    }
    const int row = static_cast<int>(threadIdx.x) / kCluster;
    if (row >= a_.group) return;
    const unsigned owner = threadIdx.x % kCluster;
    const Part part = stats_of_block(row);
    cluster::store_async(cluster::address_in(owner, shared_address_of(&x_.of_block[rank_][row])),
                         float2{part.largest, part.total}, cluster::address_in(owner, barrier()));
  }

  /// Largest logit and total of the block's warps.
  __device__ Part stats_of_block(int row) const {
    Part part;
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w)
      part.largest = fmaxf(part.largest, x_.of_warp[w][row].x);
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const float2 stats = x_.of_warp[w][row];
      part.total = fmaf(stats.y, weight_of(stats.x, part.largest), part.total);
    }
    return part;
  }

  __device__ Part of_block(int row, int d) const {
    Part part = stats_of_block(row);
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const float factor = weight_of(x_.of_warp[w][row].x, part.largest);
      add_scaled(part.sum, *reinterpret_cast<const float4*>(sums_of(w) + row * S::kSumStride + d),
                 factor);
    }
    return part;
  }

  __device__ static void add_scaled(float4& to, const float4& x, float factor) {
    to.x = fmaf(x.x, factor, to.x);
    to.y = fmaf(x.y, factor, to.y);
    to.z = fmaf(x.z, factor, to.z);
    to.w = fmaf(x.w, factor, to.w);
  }

  /// Adds what all blocks have sent, and writes it. No block ends before it has all that others
  /// write into its memory, so none writes into memory of a block that has ended.
  __device__ void collect() {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < owned_) hopper::wait_barrier(barrier(), 0);
#pragma unroll 1
    for (int index = thread; index < owned_; index += S::kThreads) {
      const int group = static_cast<int>(rank_) * owned_ + index;
      const int row = group / kGroups;
      this->write(walk_, row, group % kGroups * 4, of_cluster(index, row));
    }
  }

  __device__ Part of_cluster(int index, int row) const {
    Part part;
#pragma unroll
    for (unsigned from = 0; from < kCluster; ++from)
      part.largest = fmaxf(part.largest, x_.of_block[from][row].x);
#pragma unroll
    for (unsigned from = 0; from < kCluster; ++from) {
      const float2 stats = x_.of_block[from][row];
      const float factor = weight_of(stats.x, part.largest);
      part.total = fmaf(stats.y, factor, part.total);
      add_scaled(part.sum, received(from)[index], factor);
    }
    return part;
  }

  Exchange& x_;
  std::byte* const shared_;
  const unsigned rank_;
  const int groups_, owned_;  // of four elements: of all rows, and those that this block writes
  Walk walk_;
  bool has_new_key_ = false;
  int64_t new_key_ = 0;  // its bytes from the planes of block 0
  Half new_half_{};
  float cosine_[kPart], sine_[kPart];
};

/// Whether a cluster of `blocks` for each unit takes less time than even parts for all blocks.
/// Parts take as long as reading all tiles does, and what joining takes; a cluster as long as the
/// longest unit. (Measured on an H200, heads of 128: a block reads a tile in 0.15 us, all of them
/// one in 2 ns; joining takes 4 us.)
__device__ inline bool suits_clusters(unsigned blocks, unsigned longest, unsigned tiles) {
  constexpr unsigned kJoining = 26, kAtOnce = 76;
  return longest <= blocks * (kJoining + tiles / kAtOnce);
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
  return __all_sync(kAll, has_one_token) && suits_clusters(blocks, longest, tiles);
}

/// Grid: clusters for the KV heads of all sequences, and as many blocks as run at once, which share
/// all tiles evenly if that is faster, or a sequence has several tokens.
template <typename T, int kSize, int kCluster>
__global__ void __launch_bounds__(Sizes<kSize, 1>::kThreads, Sizes<kSize, 1>::kBlocks)
    attend_few(const __grid_constant__ AttentionArgs a, const __grid_constant__ Work work) {
  using S = Sizes<kSize, 1>;
  extern __shared__ __align__(16) std::byte shared[];
  __shared__ union {
    Exchange<S::kRows, S::kWarps> block;
    ClusterExchange<kCluster, S::kRows> cluster;
  } exchange;
  __shared__ unsigned offsets[kFewSequences + 1];
  device::let_successor_start();
  if (takes_clusters(work.division, work.lengths, kCluster, offsets)) {
    const int unit = static_cast<int>(blockIdx.x) / kCluster;
    const int sequence = unit / a.kv_heads;
    if (sequence >= work.lengths.sequences) return;
    if (work.lengths.query_length[work.lengths.first + sequence] == 0) {
      device::wait_for_predecessor();
      return;
    }
    Cluster<T, kSize, kCluster>(a, work, exchange.cluster, shared)
        .run(sequence, unit - sequence * a.kv_heads);
    return;
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
