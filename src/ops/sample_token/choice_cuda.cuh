// The limits of a draw and the draw, over a row that a cluster of blocks has (RowCluster), or over
// a short list of its tokens that one block has (TokenList). Where a limit is a count or a mass
// (top_k, top_p, typical_p), a threshold is found by histograms. All sums are of integers, so that
// atomic additions give the same token in any order. For .cu files.
#pragma once

#include <bit>
#include <type_traits>

#include "ops/common/sampling_cluster_cuda.cuh"
#include "ops/sample_token/sample_token_io.h"

namespace millrace::ops {

inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;
static_assert(kBins == 2 * kRowThreads);
inline constexpr uint32_t kInfinityBits = 0x7f800000u;
inline constexpr float kBinsPerUnit =
    64;  // of a logit: all bins reach to where tokens weigh nothing

struct Threshold {
  uint32_t key = 0;
  uint64_t below = 0;  // units of the smaller keys
  uint64_t limit = 0;  // that they do not exceed
};

/// Where a threshold lies: a bin of equal logits, nearly.
struct ValueBin {
  Threshold found;    // at the lowest key that can be in the bin
  uint32_t high = 0;  // the highest
  int bin = 0;
};

struct TokenShared {
  RowShared row;
  alignas(16) uint2 bins[2][kBins];  // low and high half of a sum
  uint64_t below;                    // what a pick found
  int bin;
  int token;   // what find_equal found
  int listed;  // tokens that the block has listed, or wanted to
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

/// Tokens of a row in any order, in the shared memory of a block: that part of RowCluster that
/// Choice needs. Every method is called by all threads of the block.
class TokenList {
 public:
  __device__ TokenList(RowShared* shared, const float* values, const int* tokens, int count,
                       int last_token)
      : warps_(shared), values_(values), tokens_(tokens), count_(count), last_token_(last_token) {}

  static __device__ int blocks() { return 1; }
  static __device__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }
  static __device__ int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ int64_t total() const { return count_; }
  /// No token is larger.
  __device__ int last_token() const { return last_token_; }
  template <typename T>
  static __device__ T* in_block(T* here, int) {
    return here;
  }
  static __device__ void sync() { __syncthreads(); }
  const __device__ uint64_t* of_warps(uint64_t x) { return warps_.put(x); }

  template <typename F>
  __device__ void for_each(const F& f) const {
    for (int i = static_cast<int>(threadIdx.x); i < count_; i += kRowThreads)
      f(values_[i], tokens_[i]);
  }
  template <typename F>
  __device__ uint64_t sum(const F& f) {
    uint64_t own = 0;
    for_each([&](float s, int token) { own += f(s, token); });
    return warp_sum(of_warps(warp_sum(own))[lane()]);
  }

 private:
  WarpTable warps_;
  const float* values_;  // [count]
  const int* tokens_;    // [count]
  int count_;
  int last_token_;
};

/// Every method is called by all threads of all blocks that have the row.
template <typename Row>
class Choice {
 public:
  __device__ Choice(Row* row, TokenShared* shared, float max)
      : row_(*row), shared_(*shared), kept_{.max = max} {}

  /// The bin of a logit in a histogram of equal widths, below the largest; the lowest bin has all
  /// the rest. A larger logit has no lower bin.
  __device__ int bin_of(float s) const {
    const float distance = (kept_.max - s) * kBinsPerUnit;
    return distance < kBins - 1 ? kBins - 1 - static_cast<int>(distance) : 0;
  }

  /// Where the k-th largest of all lies. REQUIRES: k <= row.total().
  __device__ ValueBin bin_of_top_k(int k) {
    const auto smaller = static_cast<uint64_t>(row_.total() - k);
    return find_bin([](float, int) { return uint64_t{1}; },
                    [smaller](uint64_t) { return smaller; });
  }
  /// `bin` from bin_of_top_k of this or of another Choice that has all tokens of the bin.
  __device__ void keep_top_k(const ValueBin& bin) {
    kept_.key = find_in_bin(bin, [](float, int) { return uint64_t{1}; }).key;
  }

  __device__ ValueBin bin_of_top_p(float top_p) {
    return find_bin(units(), [top_p](uint64_t total) { return units_to_drop(top_p, total); });
  }
  /// As long as no limit has been set; the same, faster.
  __device__ ValueBin first_bin_of_top_p(float top_p) {
    return find_bin(all_units(), [top_p](uint64_t total) { return units_to_drop(top_p, total); });
  }
  __device__ void keep_top_p(const ValueBin& bin) {
    const Threshold found = find_in_bin(bin, units());
    kept_.key = found.key;
    // Equals weigh the same; they are dropped one by one, lowest token first.
    const uint64_t each = weight_units(sampling_exp(float_of_key(found.key) - kept_.max));
    const uint64_t dropped = (found.limit - found.below) / each;
    if (dropped > 0) kept_.first = find_equal(found.key, dropped);
  }

  __device__ void keep_min_p(float min_p) { kept_.min_p = min_p; }

  __device__ void keep_typical(float mass) {
    const uint64_t surprise = row_.sum([this](float s, int token) {
      return surprise_units(s - kept_.max, kept_.weight(s, token));
    });
    const uint64_t total = row_.sum(units());
    kept_.mean = mean_of_units(surprise, total);
    kept_.surprise = find_threshold(
                         {.limit = units_to_keep(mass, total) - 1}, kInfinityBits,
                         [this](float s, int) { return kept_.surprise_of(s); }, units())
                         .key;
  }

  /// The token in one thread at least, -1 in all others.
  __device__ int draw(const SamplingRow& row) {
    return locate(units(), [&row](uint64_t total) { return draw_units(row, total); });
  }
  /// As long as no limit has been set; the same, faster.
  __device__ int draw_of_all(const SamplingRow& row) {
    return locate(all_units(), [&row](uint64_t total) { return draw_units(row, total); });
  }

 private:
  /// The units of a token that is kept.
  __device__ auto units() const {
    return [this](float s, int token) { return weight_units(kept_.weight(s, token)); };
  }

  /// The units of any token.
  __device__ auto all_units() const {
    return [max = kept_.max](float s, int) { return weight_units(sampling_exp(s - max)); };
  }

  /// The first token, in their order, up to and with which the sum of units_of exceeds
  /// limit_of(sum over the row): in one thread at least, -1 in all others.
  template <typename UnitsOf, typename LimitOf>
  __device__ int locate(const UnitsOf& units_of, const LimitOf& limit_of) {
    if constexpr (std::is_same_v<Row, TokenList>) {
      const Threshold found = find_threshold(
          {.limit = limit_of(row_.sum(units_of))}, static_cast<uint32_t>(row_.last_token()),
          [](float, int token) { return static_cast<uint32_t>(token); }, units_of);
      return static_cast<int>(found.key);
    } else {
      return row_.locate(units_of, limit_of);
    }
  }

  /// The token with this key before which there are `before` others with it.
  __device__ int find_equal(uint32_t key, uint64_t before) {
    const int token =
        locate([key](float s, int) { return ordered_key(s) == key ? uint64_t{1} : uint64_t{0}; },
               [before](uint64_t) { return before; });
    if (token >= 0) {
      for (int r = 0; r < row_.blocks(); ++r)
        *row_.in_block(&shared_.token, r) = token;
    }
    row_.sync();
    return shared_.token;
  }

  /// The bits of a float in front are much the same in all logits, so that most threads would add
  /// to few bins: a histogram over the logits themselves comes first. `limit_of` the sum over the
  /// row.
  template <typename UnitsOf, typename LimitOf>
  __device__ ValueBin find_bin(const UnitsOf& units_of, const LimitOf& limit_of) {
    uint2* bins = clear_bins();
    row_.for_each([&](float s, int token) { add(bins + bin_of(s), units_of(s, token)); });
    row_.sync();
    const uint64_t limit = pick(bins, 0, limit_of);
    const int bin = shared_.bin;
    // The bin's edges, a little apart from where rounding could have put them.
    const float slack = (fabsf(kept_.max) + 32) * 0x1p-21F;
    const float upper = kept_.max - static_cast<float>(kBins - 1 - bin) / kBinsPerUnit;
    const uint32_t low = bin == 0 ? kLowestKey : ordered_key(upper - 1 / kBinsPerUnit - slack);
    return {.found = {low, shared_.below, limit},
            .high = min(ordered_key(upper + slack), ordered_key(kept_.max)),
            .bin = bin};
  }

  /// The threshold inside a bin.
  template <typename UnitsOf>
  __device__ Threshold find_in_bin(const ValueBin& bin, const UnitsOf& units_of) {
    return find_threshold(
        bin.found, bin.high,
        [&bin, this](float s, int) {
          const uint32_t key = ordered_key(s);
          return key >= bin.found.key && key <= bin.high && bin_of(s) == bin.bin ? key : 0;
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
      row_.for_each([&](float s, int token) {
        const uint32_t key = key_of(s, token), distance = key - found.key;
        if (key < found.key || uint64_t{distance} >> above != 0) return;
        add(bins + (distance >> shift), units_of(s, token));
      });
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
      if (r >= row_.blocks()) continue;
      const uint4 part = row_.in_block(reinterpret_cast<uint4*>(bins), r)[pair];
      even += uint64_t{part.y} << 32 | part.x;
      odd += uint64_t{part.w} << 32 | part.z;
    }
    const uint64_t running = warp_running_sum(even + odd);
    const uint64_t own = __shfl_sync(0xffffffffu, running, kWarp - 1);
    const uint64_t of_warp = row_.of_warps(own)[row_.lane()];
    const uint64_t of_warps = warp_running_sum(of_warp);
    const uint64_t before =
        below + __shfl_sync(0xffffffffu, of_warps - of_warp, row_.warp()) + running - even - odd;
    const uint64_t limit = limit_of(below + __shfl_sync(0xffffffffu, of_warps, kWarp - 1));
    if (before <= limit && limit < before + even + odd) {
      const bool is_odd = before + even <= limit;
      shared_.bin = 2 * pair + (is_odd ? 1 : 0);
      shared_.below = before + (is_odd ? even : 0);
    }
    __syncthreads();
    return limit;
  }

  Row& row_;
  TokenShared& shared_;
  Kept kept_;
  int bins_turn_ = 0;
};

}  // namespace millrace::ops
