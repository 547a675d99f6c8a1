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
inline constexpr int kRowBlocks = 8;  // at most: as many as every GPU can place together
#define MILLRACE_ROW_CLUSTER __cluster_dims__(kRowBlocks)
#else
inline constexpr int kRowBlocks = 1;
#define MILLRACE_ROW_CLUSTER
#endif
inline constexpr int kRowThreads = 1024;
inline constexpr int kRowWarps = kRowThreads / kWarp;
inline constexpr int kPackedLogits = 4;
inline constexpr int kWarpPack = kWarp * kPackedLogits;
inline constexpr int kBlockPack = kRowWarps * kWarpPack;
inline constexpr int kKeptBytes = 184 * 1024;        // of a block's shared memory, for logits
inline constexpr uint32_t kLowestKey = 0x007fffffu;  // ordered_key(-infinity)
inline constexpr uint32_t kNanKey = ~0u;             // above the key of +infinity

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
  explicit RowSplit(int64_t vocab_size) : RowSplit(vocab_size, row_blocks()) {}
  RowSplit(int64_t vocab_size, int blocks)
      : vocab(vocab_size),
        segment(static_cast<int>((vocab + blocks * kBlockPack - 1) / (blocks * kBlockPack)) *
                kWarpPack),
        is_kept(int64_t{segment} * kRowWarps * 4 <= kept_bytes()),
        is_packed(vocab % kPackedLogits == 0) {}

  /// Whether rows that begin at `data` can be read in packs, too.
  void restrict_to(const void* data) {
    is_packed = is_packed && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  }
  MILLRACE_HD size_t shared_bytes() const { return is_kept ? size_t{4} * kRowWarps * segment : 0; }

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
  __device__ static unsigned num_blocks() { return 1; }
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

/// The largest of what a thread has seen; tokens come in ascending order.
struct LargestLogit {
  float value = -__builtin_inff();
  int token = 0;
  bool has_nan = false;

  __device__ void add(float x, int at) {
    has_nan = has_nan || isnan(x);
    if (x > value) {
      value = x;
      token = at;
    }
  }
  __device__ uint64_t as_ranked() const {
    return ranked(has_nan ? __builtin_nanf("") : value, token);
  }
};

/// A number of each warp of a block, for all of them. One table may still be read while the next is
/// written.
class WarpTable {
 public:
  explicit __device__ WarpTable(RowShared* shared) : warps_(shared->warps) {}

  /// The numbers [kRowWarps]; lane 0 gives its warp's.
  const __device__ uint64_t* put(uint64_t x) {
    turn_ ^= 1;
    if (threadIdx.x % kWarp == 0) warps_[turn_][threadIdx.x / kWarp] = x;
    __syncthreads();
    return warps_[turn_];
  }

 private:
  uint64_t (*warps_)[kRowWarps];
  int turn_ = 0;
};

/// Every method is called by all threads of all blocks of the cluster, in the same order.
/// A thread walks the elements lane(), lane() + 32, ... below count() of its warp's segment; or has
/// them walked by for_each(), in packs where rows allow that.
class RowCluster {
 public:
  /// `kept` has RowSplit::shared_bytes.
  __device__ RowCluster(const RowSplit& split, RowShared* shared, float* kept)
      : cluster_(row_team()),
        shared_(shared),
        warps_(shared),
        split_(split),
        blocks_(static_cast<int>(cluster_.num_blocks())),
        rank_(static_cast<int>(cluster_.block_rank())),
        warp_(static_cast<int>(threadIdx.x) / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        kept_(kept),
        first_(rank_ * kRowWarps * split.segment),
        begin_(warp_ * split.segment),
        count_(count_of(warp_)) {
    cluster_.barrier_arrive();  // the others' shared memory exists once they have arrived
  }

  /// Returns the largest of the row as ranked() has it. With `keeps`, the walks that follow see
  /// x / divisor. The first call of all.
  __device__ uint64_t load(const float* x, float divisor, bool keeps) {
    const bool stores = keeps && split_.is_kept;
    divider_ = Divider(divisor);
    divides_ = divisor != 1;
    at_ = x + first_;
    largest_ = split_.is_packed ? read<kPackedLogits>(stores) : read<1>(stores);
    if (stores) {
      at_ = kept_;
      divides_ = false;
    }
    __syncwarp();  // other lanes of the warp walk what this one has stored
    cluster_.barrier_wait();
    return largest(largest_.as_ranked());
  }

  __device__ int blocks() const { return blocks_; }
  __device__ int rank() const { return rank_; }
  __device__ int lane() const { return lane_; }
  __device__ int warp() const { return warp_; }
  __device__ int count() const { return count_; }
  __device__ int64_t total() const { return split_.vocab; }
  __device__ int64_t token(int i) const { return first_ + begin_ + i; }
  __device__ float value(int i) const { return value_in_block(begin_ + i); }

  /// Of what for_each() walks.
  __device__ float largest_of_thread() const { return divider_(largest_.value); }

  /// The address of `*here` in block `rank`.
  template <typename T>
  __device__ T* in_block(T* here, int rank) {
    return cluster_.map_shared_rank(here, rank);
  }
  __device__ void sync() { cluster_.sync(); }

  /// Each warp's number, once per block; lane 0 gives it.
  const __device__ uint64_t* of_warps(uint64_t x) { return warps_.put(x); }

  /// Each block's number; the first threads give it.
  const __device__ uint64_t* of_blocks(uint64_t x) {
    blocks_turn_ ^= 1;
    uint64_t* numbers = shared_->blocks[blocks_turn_];
    const auto thread = static_cast<int>(threadIdx.x);
    if (thread < blocks_) *in_block(numbers + rank_, thread) = x;
    sync();
    return numbers;
  }

  /// Over the threads of the block.
  __device__ uint64_t largest_of_block(uint64_t x) {
    const uint64_t* warps = of_warps(warp_max(x));
    return warp_max(warps[lane_]);
  }

  /// A logit, divided, that at least `count` others of the row reach, and not many more: in each
  /// block the count-th largest of what its threads have, to 20 bits. REQUIRES: count <=
  /// kRowThreads
  __device__ float reached_by(int count) {
    const uint32_t own = ordered_key(largest_.value);
    uint32_t key = 0;
    for (uint32_t bit = 1u << 31; bit >= 1u << 12; bit >>= 1) {
      if (__syncthreads_count(own >= (key | bit)) >= count) key |= bit;
    }
    const uint64_t best = largest_number(of_blocks(max(key, kLowestKey)));
    return divider_(float_of_key(static_cast<uint32_t>(best)));
  }

  __device__ uint64_t largest(uint64_t x) { return largest_number(of_blocks(largest_of_block(x))); }

  /// Calls f(value, token) for the thread's elements, in the order of tokens.
  template <typename F>
  __device__ void for_each(const F& f) const {
    constexpr int kReads = 2;
    if (split_.is_packed) {
      walk<kPackedLogits, kReads>(f);
    } else {
      walk<1, kReads>(f);
    }
  }

  /// Sum of f(value, token) over the row.
  template <typename F>
  __device__ uint64_t sum(const F& f) {
    const uint64_t* warps = of_warps(warp_sum(sum_of_thread(f)));
    const uint64_t* numbers = of_blocks(warp_sum(warps[lane_]));
    uint64_t total = 0;
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r)
      total += r < blocks_ ? numbers[r] : 0;
    return total;
  }

  /// The first token up to and with which the sum of f(value, token) exceeds limit_of(sum over the
  /// row): in the one thread that finds it, -1 in all others.
  template <typename F, typename L>
  __device__ int locate(const F& f, const L& limit_of) {
    const uint64_t of_warp = of_warps(warp_sum(sum_of_thread(f)))[lane_];
    const uint64_t* numbers = of_blocks(warp_sum(of_warp));
    uint64_t before = 0, total = 0;
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r) {
      before += r < rank_ ? numbers[r] : 0;
      total += r < blocks_ ? numbers[r] : 0;
    }
    const uint64_t limit = limit_of(total);
    if (limit < before || limit >= before + numbers[rank_]) return -1;
    const uint64_t reached = before + warp_running_sum(of_warp);
    const unsigned exceeds = __ballot_sync(0xffffffffu, reached > limit);
    const int warp = __ffs(static_cast<int>(exceeds)) - 1;
    return locate_in_segment(warp, __shfl_sync(0xffffffffu, reached - of_warp, warp), limit, f);
  }

 private:
  __device__ uint64_t largest_number(const uint64_t* of_blocks) const {
    uint64_t best = 0;
#pragma unroll
    for (int r = 0; r < kRowBlocks; ++r)
      best = r < blocks_ ? max(best, of_blocks[r]) : best;
    return best;
  }

  /// Of a warp of this block.
  __device__ int count_of(int warp) const {
    const int64_t left = split_.vocab - first_ - int64_t{warp} * split_.segment;
    return static_cast<int>(max(int64_t{0}, min(int64_t{split_.segment}, left)));
  }

  __device__ float value_in_block(int i) const { return divides_ ? divider_(at_[i]) : at_[i]; }

  /// As locate(), in the segment of a warp, `before` which the sum is known. By all threads of its
  /// block, each with neighbouring tokens.
  template <typename F>
  __device__ int locate_in_segment(int warp, uint64_t before, uint64_t limit, const F& f) {
    const int count = count_of(warp), each = (count + kRowThreads - 1) / kRowThreads;
    const int begin = min(count, static_cast<int>(threadIdx.x) * each);
    const int first = warp * split_.segment + begin, end = first + min(each, count - begin);
    uint64_t own = 0;
    for (int i = first; i < end; ++i)
      own += f(value_in_block(i), first_ + i);
    const uint64_t running = warp_running_sum(own);
    const uint64_t* warps = of_warps(__shfl_sync(0xffffffffu, running, kWarp - 1));
    uint64_t reached = before + warp_sum(lane_ < warp_ ? warps[lane_] : 0) + running - own;
    if (limit < reached || limit >= reached + own) return -1;
    for (int i = first; i < end; ++i) {
      reached += f(value_in_block(i), first_ + i);
      if (reached > limit) return first_ + i;
    }
    return -1;
  }

  template <typename F>
  __device__ uint64_t sum_of_thread(const F& f) const {
    uint64_t sum = 0;
    for_each([&](float value, int token) { sum += f(value, token); });
    return sum;
  }

  /// Calls f(packs, i) for the thread's packs of the block's part, of which element i is the first;
  /// kReads of them are under way at a time.
  template <int kPack, int kReads, typename F>
  __device__ void walk_packs(const F& f) const {
    const int end = begin_ + count_;
    for (int first = begin_ + kPack * lane_; first < end; first += kReads * kPack * kWarp) {
      Pack<float, kPack> packs[kReads];
#pragma unroll
      for (int j = 0; j < kReads; ++j) {
        const int i = first + j * kPack * kWarp;
        if (i < end) packs[j] = *reinterpret_cast<const Pack<float, kPack>*>(at_ + i);
      }
#pragma unroll
      for (int j = 0; j < kReads; ++j) {
        const int i = first + j * kPack * kWarp;
        if (i < end) f(packs[j], i);
      }
    }
  }

  template <int kPack, int kReads, typename F>
  __device__ void walk(const F& f) const {
    walk_packs<kPack, kReads>([&](const Pack<float, kPack>& pack, int i) {
#pragma unroll
      for (int part = 0; part < kPack; ++part) {
        const float x = pack.at[part];
        f(divides_ ? divider_(x) : x, first_ + i + part);
      }
    });
  }

  /// The largest of the thread's part, of global memory.
  template <int kPack>
  __device__ LargestLogit read(bool stores) {
    constexpr int kReads = 4;
    LargestLogit largest;
    walk_packs<kPack, kReads>([&](Pack<float, kPack> pack, int i) {
#pragma unroll
      for (int part = 0; part < kPack; ++part) {
        float& x = pack.at[part];
        largest.add(x, first_ + i + part);
        if (stores && divides_) x = divider_(x);
      }
      if (stores) *reinterpret_cast<Pack<float, kPack>*>(kept_ + i) = pack;
    });
    return largest;
  }

  RowTeam cluster_;
  RowShared* shared_;
  WarpTable warps_;
  RowSplit split_;
  int blocks_, rank_, warp_, lane_;
  float* kept_;                // the block's part, where it is kept
  int first_;                  // token of the block's part
  int begin_;                  // of the warp's part in it
  int count_;                  // the warp's tokens
  const float* at_ = nullptr;  // the block's part, to walk
  LargestLogit largest_;
  Divider divider_{1};
  bool divides_ = false;
  int blocks_turn_ = 0;
};

}  // namespace millrace::ops
