// One row of logits on a cluster of blocks: read once into their shared memory, then walked as
// often as needed. On GPUs before Hopper, which have no clusters, it is one block. For .cu files.
#pragma once

#include <algorithm>

#include <cooperative_groups.h>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/sampling_math.h"

namespace millrace::ops {

// Blocks of a row, in device code; the host asks row_blocks().
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
inline constexpr int kRowBlocks = 8;  // of a cluster: as many as every GPU can place together
#define MILLRACE_ROW_CLUSTER __cluster_dims__(kRowBlocks)
#else
inline constexpr int kRowBlocks = 1;
#define MILLRACE_ROW_CLUSTER
#endif
inline constexpr int kRowThreads = 1024;
inline constexpr int kRowWarps = kRowThreads / kWarp;
inline constexpr int kPackedLogits = 4;
inline constexpr int kWarpPack = kWarp * kPackedLogits;
inline constexpr int kKeptBytes = 184 * 1024;  // of a block's shared memory, for logits
inline constexpr uint32_t kNanKey = ~0u;       // above the key of +infinity

/// What kRowBlocks is in the code that the current device runs.
inline int row_blocks() {
  return device::has_clusters() ? kRowBlocks : 1;
}

/// Shared memory of a block that logits may have, beside that of the kernel itself.
inline int kept_bytes() {
  constexpr int kOfKernel = 40 * 1024;
  return std::min(kKeptBytes, device::shared_bytes_of_block() - kOfKernel);
}

/// Where a row's tokens lie: warp w, of all in the cluster, has [w * segment, (w + 1) * segment).
struct RowSplit {
  explicit RowSplit(int64_t vocab_size) : RowSplit(vocab_size, row_blocks() * kRowWarps) {}
  RowSplit(int64_t vocab_size, int warps)
      : vocab(vocab_size),
        segment(static_cast<int>((vocab + warps * kWarpPack - 1) / (warps * kWarpPack)) *
                kWarpPack),
        is_kept(int64_t{segment} * kRowWarps * 4 <= kept_bytes()),
        is_packed(vocab % kPackedLogits == 0) {}

  /// Whether rows that begin at `data` can be read in packs, too.
  void restrict_to(const void* data) {
    is_packed = is_packed && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  }
  size_t shared_bytes() const { return is_kept ? size_t{4} * kRowWarps * segment : 0; }

  int64_t vocab;
  int segment;     // a multiple of kWarpPack
  bool is_kept;    // in shared memory; else each walk reads global memory
  bool is_packed;  // rows lie on 16 bytes
};

/// Shared memory of a RowCluster. Two of each: one may still be read while the next is written.
struct RowShared {
  uint64_t warps[2][kRowWarps];
  uint64_t blocks[2][kRowBlocks];
};

__device__ inline uint64_t warp_sum(uint64_t x) {
  for (int step = kWarp / 2; step > 0; step /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// Sum over this lane and those before it.
__device__ inline uint64_t warp_running_sum(uint64_t x) {
  for (int step = 1; step < kWarp; step *= 2) {
    const uint64_t before = __shfl_up_sync(0xffffffffu, x, step);
    if (threadIdx.x % kWarp >= step) x += before;
  }
  return x;
}

__device__ inline uint64_t warp_max(uint64_t x) {
  const auto high = static_cast<uint32_t>(x >> 32);
  const uint32_t best = __reduce_max_sync(0xffffffffu, high);
  const uint32_t low = high == best ? static_cast<uint32_t>(x) : 0;
  return uint64_t{best} << 32 | __reduce_max_sync(0xffffffffu, low);
}

/// A logit and its token as one number: the larger logit is larger, of equals the lower token.
/// NaN is above all; 0 is below all.
__device__ inline uint64_t ranked(float x, int64_t token) {
  const uint32_t key = isnan(x) ? kNanKey : ordered_key(x);
  return uint64_t{key} << 32 | ~static_cast<uint32_t>(token);
}
__device__ inline uint32_t key_of_ranked(uint64_t r) {
  return static_cast<uint32_t>(r >> 32);
}
__device__ inline int32_t token_of_ranked(uint64_t r) {
  return static_cast<int32_t>(~static_cast<uint32_t>(r));
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
using RowTeam = cooperative_groups::cluster_group;
__device__ inline RowTeam row_team() {
  return cooperative_groups::this_cluster();
}
#else
/// A cluster of one block.
struct RowTeam {
  __device__ static unsigned block_rank() { return 0; }
  __device__ static void barrier_arrive() {}
  __device__ static void barrier_wait() { __syncthreads(); }
  __device__ static void sync() { __syncthreads(); }
  template <typename T>
  __device__ static T* map_shared_rank(T* here, int) {
    return here;
  }
};
__device__ inline RowTeam row_team() {
  return {};
}
#endif

/// Every method is called by all threads of all blocks of the cluster, in the same order.
/// A thread walks the elements lane(), lane() + 32, ... below count() of its warp's segment.
class RowCluster {
 public:
  /// `kept` has RowSplit::shared_bytes.
  __device__ RowCluster(const RowSplit& split, RowShared* shared, float* kept)
      : cluster_(row_team()),
        shared_(shared),
        rank_(static_cast<int>(cluster_.block_rank())),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        kept_(kept + int64_t{warp_} * split.segment),
        first_(int64_t{rank_ * kRowWarps + warp_} * split.segment),
        count_(
            static_cast<int>(max(int64_t{0}, min(int64_t{split.segment}, split.vocab - first_)))) {
    cluster_.barrier_arrive();  // the others' shared memory exists once they have arrived
  }

  /// Returns the largest of the row as ranked() has it. With `keeps`, the walks that follow see
  /// x / divisor. The first call of all.
  __device__ uint64_t load(const RowSplit& split, const float* x, float divisor, bool keeps) {
    const bool stores = keeps && split.is_kept;
    at_ = stores ? kept_ : x + first_;
    divisor_ = stores ? 1 : divisor;
    const uint64_t best = split.is_packed ? read<kPackedLogits>(x + first_, divisor, stores)
                                          : read<1>(x + first_, divisor, stores);
    __syncwarp();  // other lanes of the warp walk what this one has stored
    cluster_.barrier_wait();
    return largest(best);
  }

  __device__ int rank() const { return rank_; }
  __device__ int lane() const { return lane_; }
  __device__ int warp() const { return warp_; }
  __device__ int count() const { return count_; }
  __device__ int64_t token(int i) const { return first_ + i; }
  __device__ float value(int i) const { return divisor_ == 1 ? at_[i] : at_[i] / divisor_; }

  /// The address of `*here` in block `rank`.
  template <typename T>
  __device__ T* in_block(T* here, int rank) {
    return cluster_.map_shared_rank(here, rank);
  }
  __device__ void sync() { cluster_.sync(); }

  /// Each warp's number, once per block; lane 0 gives it.
  const __device__ uint64_t* of_warps(uint64_t x) {
    warps_turn_ ^= 1;
    uint64_t* warps = shared_->warps[warps_turn_];
    if (lane_ == 0) warps[warp_] = x;
    __syncthreads();
    return warps;
  }

  /// Each block's number; the first threads give it.
  const __device__ uint64_t* of_blocks(uint64_t x) {
    blocks_turn_ ^= 1;
    uint64_t* blocks = shared_->blocks[blocks_turn_];
    if (threadIdx.x < kRowBlocks) *in_block(blocks + rank_, static_cast<int>(threadIdx.x)) = x;
    sync();
    return blocks;
  }

  /// Over the threads of the block.
  __device__ uint64_t largest_of_block(uint64_t x) {
    const uint64_t* warps = of_warps(warp_max(x));
    return warp_max(warps[lane_]);
  }

  __device__ uint64_t largest(uint64_t x) {
    const uint64_t* blocks = of_blocks(largest_of_block(x));
    uint64_t best = 0;
    for (int r = 0; r < kRowBlocks; ++r)
      best = max(best, blocks[r]);
    return best;
  }

  /// Sum of of_element(i) over the row.
  template <typename F>
  __device__ uint64_t sum(const F& of_element) {
    const uint64_t* warps = of_warps(warp_sum(sum_of_thread(of_element)));
    const uint64_t* blocks = of_blocks(warp_sum(warps[lane_]));
    uint64_t total = 0;
    for (int r = 0; r < kRowBlocks; ++r)
      total += blocks[r];
    return total;
  }

  /// The first token up to and with which the sum of of_element exceeds limit_of(sum over the row):
  /// in all lanes of the one warp that has it, -1 in all others.
  template <typename F, typename L>
  __device__ int64_t locate(const F& of_element, const L& limit_of) {
    const uint64_t own = warp_sum(sum_of_thread(of_element));
    const uint64_t* warps = of_warps(own);
    const uint64_t of_warp = warps[lane_];
    uint64_t before = warp_sum(lane_ < warp_ ? of_warp : 0);
    const uint64_t* blocks = of_blocks(warp_sum(of_warp));
    uint64_t total = 0;
    for (int r = 0; r < kRowBlocks; ++r) {
      before += r < rank_ ? blocks[r] : 0;
      total += blocks[r];
    }
    const uint64_t limit = limit_of(total);
    if (limit < before || limit >= before + own) return -1;
    for (int begin = 0; begin < count_; begin += kWarp) {
      const int i = begin + lane_;
      const uint64_t reached = before + warp_running_sum(i < count_ ? of_element(i) : 0);
      const unsigned exceeds = __ballot_sync(0xffffffffu, reached > limit);
      if (exceeds != 0) return token(begin + __ffs(static_cast<int>(exceeds)) - 1);
      before = __shfl_sync(0xffffffffu, reached, kWarp - 1);
    }
    return -1;
  }

 private:
  template <typename F>
  __device__ uint64_t sum_of_thread(const F& of_element) const {
    uint64_t sum = 0;
    for (int i = lane_; i < count_; i += kWarp)
      sum += of_element(i);
    return sum;
  }

  /// The largest of the thread's part. Four reads are under way at a time.
  template <int kPack>
  __device__ uint64_t read(const float* x, float divisor, bool stores) {
    constexpr int kReads = 4;
    uint64_t best = 0;
    for (int begin = kPack * lane_; begin < count_; begin += kReads * kPack * kWarp) {
      Pack<float, kPack> packs[kReads];
#pragma unroll
      for (int j = 0; j < kReads; ++j) {
        const int i = begin + j * kPack * kWarp;
        if (i < count_) packs[j] = *reinterpret_cast<const Pack<float, kPack>*>(x + i);
      }
#pragma unroll
      for (int j = 0; j < kReads; ++j) {
        const int i = begin + j * kPack * kWarp;
        if (i >= count_) break;
#pragma unroll
        for (int part = 0; part < kPack; ++part) {
          float& v = packs[j].at[part];
          best = max(best, ranked(v, token(i + part)));
          if (stores && divisor != 1) v /= divisor;
        }
        if (stores) *reinterpret_cast<Pack<float, kPack>*>(kept_ + i) = packs[j];
      }
    }
    return best;
  }

  RowTeam cluster_;
  RowShared* shared_;
  int rank_, warp_, lane_;
  float* kept_;                // the warp's part
  int64_t first_;              // the first token of the warp
  int count_;                  // its tokens
  const float* at_ = nullptr;  // the warp's part, to walk
  float divisor_ = 1;
  int warps_turn_ = 0, blocks_turn_ = 0;
};

}  // namespace millrace::ops
