// What kernels share that take one new token of a sequence, with whole heads rotated in halves:
// they read query, angles and, of a 16-bit cache, the new key at once, each warp for itself, and
// put the sums of the warps side by side. For .cu files.
#pragma once

#include "ops/attention_generation/generation_tiles_cuda.cuh"

namespace millrace::ops::generation {

/// Eight elements of a head, and the eight half a head away.
struct HeadHalf {
  uint4 x, y;
};

/// SizesOf: of the ring.
template <typename T, int kSize, typename SizesOf, typename Stored = T>
class Token : public Tiles<T, kSize, SizesOf::kColumns, Stored, SizesOf> {
 public:
  using Base = Tiles<T, kSize, SizesOf::kColumns, Stored, SizesOf>;
  using S = SizesOf;
  static constexpr int kGroups = kSize / 4;  // of four elements of a row
  /// Each warp has a place in shared memory: its sums [rows, kSumStride], then, where it takes
  /// tokens, its queries [rows, kQueryStride].
  static constexpr int kPlaceBytes = S::kSumBytes + S::kRows * S::kQueryStride * 2;

  /// Warps' places begin at `places`, `place_stride` bytes apart; stats: [warps, rows].
  __device__ Token(const AttentionArgs& a, const Work& work, const Shares& shares,
                   std::byte* shared, std::byte* places, int place_stride,
                   float2 (*stats)[S::kRows])
      : Base(a, work, shares, shared),
        places_(places),
        place_stride_(place_stride),
        stats_(stats) {}

 protected:
  using Base::a_, Base::w_, Base::lane, Base::warp;
  using Base::largest_, Base::total_, Base::sums_;

  /// A lane rotates 8 elements and those half a head away; so many lanes have a row.
  static constexpr int kHalf = kSize / 2, kRowLanes = kHalf / kPart;
  static constexpr int kQueryParts = S::kRows * kRowLanes / kWarp;

  /// As they come from memory.
  struct Read {
    HeadHalf queries[kQueryParts];
    HeadHalf new_key;  // K of the first kRowLanes lanes, V of the next ones
    float4 cosines[2], sines[2];
  };

  /// Where a lane's elements of a head begin.
  __device__ static int first_element() { return lane() % kRowLanes * kPart; }
  /// The query row of a lane's part `i`.
  __device__ static int row_of_part(int i) { return i * (kWarp / kRowLanes) + lane() / kRowLanes; }
  __device__ static bool has_part_of_value() { return lane() >= kRowLanes; }

  /// Reads what a KV head of a row needs; the new key if it is this warp's. Not from the cache of
  /// the multiprocessor, which may have what was there before the kernel in front of this one.
  __device__ Read read_token(int64_t row, int kv_head, bool has_new_key) const {
    const Appended& appended = w_.appended;
    const int d = first_element();
    const auto half = [&](const void* x, int64_t stride, int head) {
      const auto* from = reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(x) +
                                                        row * stride + head * kSize + d);
      return HeadHalf{__ldcg(from), __ldcg(from + kRowLanes)};
    };
    Read read{};
#pragma unroll
    for (int i = 0; i < kQueryParts; ++i) {
      const int query = row_of_part(i);
      if (query < a_.group) read.queries[i] = half(a_.q, w_.q_stride, kv_head * a_.group + query);
    }
    const auto* angles = reinterpret_cast<const float4*>(appended.angles + row * kSize + d);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      read.cosines[i] = __ldcg(angles + i);
      read.sines[i] = __ldcg(angles + kHalf / 4 + i);
    }
    if (has_new_key && lane() < 2 * kRowLanes) {
      read.new_key = has_part_of_value() ? half(appended.v, appended.v_stride, kv_head)
                                         : half(appended.k, appended.k_stride, kv_head);
    }
    return read;
  }

  /// Rotates the queries, which become the operands of the products, and the new key.
  __device__ void take_token(Read& read, const Walk& walk, bool has_new_key) {
    const float cosines[kPart] = {read.cosines[0].x, read.cosines[0].y, read.cosines[0].z,
                                  read.cosines[0].w, read.cosines[1].x, read.cosines[1].y,
                                  read.cosines[1].z, read.cosines[1].w};
    const float sines[kPart] = {read.sines[0].x, read.sines[0].y, read.sines[0].z, read.sines[0].w,
                                read.sines[1].x, read.sines[1].y, read.sines[1].z, read.sines[1].w};
    uint16_t* const queries = reinterpret_cast<uint16_t*>(place(warp()) + S::kSumBytes);
#pragma unroll
    for (int i = 0; i < kQueryParts; ++i) {
      const int query = row_of_part(i);
      if (query >= a_.group) continue;
      rotate(read.queries[i], cosines, sines);
      auto* const to =
          reinterpret_cast<uint4*>(queries + query * S::kQueryStride + first_element());
      to[0] = read.queries[i].x;
      to[kRowLanes] = read.queries[i].y;
    }
    __syncwarp();
    this->load_queries(walk, a_.group, queries);
    if (!has_new_key) return;
    new_half_ = read.new_key;
    if (!has_part_of_value()) rotate(new_half_, cosines, sines);
  }

  /// Calls put(is_v, chunk, x) with the new key and value, 16 bytes each.
  template <typename Put>
  __device__ void put_new_key(const Put& put) const {
    if (lane() >= 2 * kRowLanes) return;
    const int chunk = lane() % kRowLanes;
    put(has_part_of_value(), chunk, new_half_.x);
    put(has_part_of_value(), chunk + kRowLanes, new_half_.y);
  }

  /// The same to the cache, `cached` bytes from the planes of block 0.
  __device__ void cache_new_key(int64_t cached) const {
    if (lane() >= 2 * kRowLanes) return;
    std::byte* const plane = has_part_of_value() ? w_.appended.v_plane : w_.appended.k_plane;
    auto* const to = reinterpret_cast<uint4*>(plane + cached) + lane() % kRowLanes;
    to[0] = new_half_.x;
    to[kRowLanes] = new_half_.y;
  }

  /// Where the token at `position` is, from the planes of block 0.
  __device__ int64_t cached_at(int64_t block, int kv_head, int position) const {
    const int slot = position - (position >> w_.block_shift << w_.block_shift);
    return block * a_.block_bytes + (int64_t{kv_head} * a_.tokens_per_block + slot) * (kSize * 2);
  }

  /// Puts this warp's sums of the first `rows` rows, which are read when they are wanted, where the
  /// block finds them.
  __device__ void share_sums(const int& rows) {
#pragma unroll
    for (int n = 0; n < S::kColumns; ++n) {
      const int row = n * 8 + lane() % 4 * 2;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float total = total_[n][i];
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2)
          total += __shfl_xor_sync(kAll, total, step);
        if (lane() < 4) stats_[warp()][row + i] = {largest_[n][i], total};
      }
      if (row >= rows) continue;
      float* const to = reinterpret_cast<float*>(place(warp())) + row * S::kSumStride;
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          to[i % 2 * S::kSumStride + this->element(d, i)] = sums_[n][d][i];
      }
    }
  }

  /// Largest logit and total of all warps.
  __device__ Part stats_of_block(int row) const {
    Part part;
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w)
      part.largest = fmaxf(part.largest, stats_[w][row].x);
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const float2 stats = stats_[w][row];
      part.total = fmaf(stats.y, weight_of(stats.x, part.largest), part.total);
    }
    return part;
  }

  /// Four elements of what all warps have shared.
  __device__ Part of_block(int row, int d) const {
    Part part = stats_of_block(row);
#pragma unroll
    for (int w = 0; w < S::kWarps; ++w) {
      const auto* sums = reinterpret_cast<const float*>(place(w)) + row * S::kSumStride + d;
      add_scaled(part.sum, *reinterpret_cast<const float4*>(sums),
                 weight_of(stats_[w][row].x, part.largest));
    }
    return part;
  }

  __device__ static void add_scaled(float4& to, const float4& x, float factor) {
    to.x = fmaf(x.x, factor, to.x);
    to.y = fmaf(x.y, factor, to.y);
    to.z = fmaf(x.z, factor, to.z);
    to.w = fmaf(x.w, factor, to.w);
  }

  __device__ void rotate(HeadHalf& half, const float (&c)[kPart], const float (&s)[kPart]) const {
    const bool is_bf16 = this->is_bf16();
    uint32_t x[4] = {half.x.x, half.x.y, half.x.z, half.x.w};
    uint32_t y[4] = {half.y.x, half.y.y, half.y.z, half.y.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 a = unpack_pair(x[i], is_bf16), b = unpack_pair(y[i], is_bf16);
      const int j = 2 * i;
      x[i] =
          pack_as(rotated(a.x, c[j], b.x, -s[j]), rotated(a.y, c[j + 1], b.y, -s[j + 1]), is_bf16);
      y[i] = pack_as(rotated(b.x, c[j], a.x, s[j]), rotated(b.y, c[j + 1], a.y, s[j + 1]), is_bf16);
    }
    half = {{x[0], x[1], x[2], x[3]}, {y[0], y[1], y[2], y[3]}};
  }

 private:
  __device__ std::byte* place(int of_warp) const { return places_ + of_warp * place_stride_; }

  std::byte* const places_;
  const int place_stride_;
  float2 (*const stats_)[S::kRows];
  HeadHalf new_half_;
};

}  // namespace millrace::ops::generation
