// Rotated queries, keys and values of this step, as attention_generation_mma_cuda takes them from
// the product of Q, K and V. Products and sums of a rotation are rounded one by one, as in
// rope_append, so that both give the same bits. For .cu files.
#pragma once

#include "ops/attention_generation/generation_parts_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops::generation {

/// Which elements of a head are a pair.
enum class Rule {
  kNone,        // none
  kHalves,      // i and i + rotary_dim / 2
  kWhole,       // the same, where all of the head is rotated
  kNeighbours,  // 2i and 2i + 1
};

/// Two neighbouring 16-bit elements.
__device__ inline float2 unpack_pair(uint32_t pair, bool is_bf16) {
  if (is_bf16) return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}
__device__ inline uint32_t pack_as(float2 pair, bool is_bf16) {
  return is_bf16 ? pack_pair<__nv_bfloat16>(pair.x, pair.y) : pack_pair<__half>(pair.x, pair.y);
}

/// x c + other s, of two neighbours.
__device__ inline float2 turned(float2 x, float2 other, float2 c, float2 s) {
  return {__fadd_rn(__fmul_rn(x.x, c.x), __fmul_rn(other.x, s.x)),
          __fadd_rn(__fmul_rn(x.y, c.y), __fmul_rn(other.y, s.y))};
}
__device__ inline float2 negative(float2 x) {
  return {-x.x, -x.y};
}

/// One head of a row, 16-bit elements, and the row's angles.
struct HeadRow {
  const uint16_t* x;
  const float* angles;
  int rotary_dim;
  bool is_bf16;

  __device__ float2 at(int d) const {
    return unpack_pair(*reinterpret_cast<const uint32_t*>(x + d), is_bf16);
  }
  __device__ float2 cosines(int i) const { return *reinterpret_cast<const float2*>(angles + i); }
  __device__ float2 sines(int i) const { return cosines(rotary_dim / 2 + i); }

  /// Elements d and d + 1 rotated, d even. Nothing branches, so that the loads of all elements that
  /// a thread wants are under way together.
  template <Rule kRule>
  __device__ float2 rotated(int d) const {
    const float2 own = at(d);
    if constexpr (kRule == Rule::kNone) return own;
    const bool turns = d < rotary_dim;
    const int half = rotary_dim / 2;
    float2 result;
    if constexpr (kRule == Rule::kNeighbours) {
      const int i = turns ? d / 2 : 0;
      const float c = angles[i], s = angles[half + i];
      result = turned(own, {own.y, own.x}, {c, c}, {-s, s});
    } else {
      const bool is_first = d < half;
      const int i = !turns ? 0 : is_first ? d : d - half;
      const float2 other = at(!turns ? d : is_first ? d + half : d - half);
      const float2 s = sines(i);
      result = turned(own, other, cosines(i), is_first ? negative(s) : s);
    }
    return {turns ? result.x : own.x, turns ? result.y : own.y};
  }
};

/// Calls function.operator()<rule>(). kSize: of a head.
template <int kSize, typename F>
__device__ void with_rule(const Appended& appended, const F& function) {
  if (!appended.is_on || appended.rotary_dim == 0) {
    function.template operator()<Rule::kNone>();
  } else if (appended.interleaved) {
    function.template operator()<Rule::kNeighbours>();
  } else if (kSize % 32 == 0 && appended.rotary_dim == kSize) {
    function.template operator()<Rule::kWhole>();
  } else {
    function.template operator()<Rule::kHalves>();
  }
}

/// A vector of kSize elements in the registers of a warp: lane l has elements 2 (l + 32 i) and the
/// one after.
template <int kSize>
struct WarpVector {
  static constexpr int kPairs = (kSize / 2 + kWarp - 1) / kWarp;
  float2 pair[kPairs];

  /// Calls function(d, pair) for this lane's elements d and d + 1.
  template <typename F>
  __device__ void for_each(const F& function) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int d = 2 * (static_cast<int>(threadIdx.x) % kWarp + i * kWarp);
      if (kSize % (2 * kWarp) == 0 || d < kSize) function(d, pair[i]);
    }
  }

  template <Rule kRule>
  __device__ void load(const HeadRow& row) {
    for_each([&](int d, float2& to) { to = row.template rotated<kRule>(d); });
  }

  /// As the cache stores it, to both; scales where there are some.
  template <typename Stored>
  __device__ void store(Stored* a, Stored* b, float* a_scale, float* b_scale) {
    if constexpr (kHasScale<Stored>) {
      float largest = 0;
      for_each([&](int, float2 x) { largest = larger_size(larger_size(largest, x.x), x.y); });
      for (int step = kWarp / 2; step > 0; step /= 2)
        largest = larger_size(largest, __shfl_xor_sync(0xffffffffu, largest, step));
      const Int8Scale scale(largest);
      for_each([&](int d, float2 x) { put(a, b, d, scale(x.x), scale(x.y)); });
      if (threadIdx.x % kWarp == 0) {
        *a_scale = scale.scale;
        if (b != nullptr) *b_scale = scale.scale;
      }
    } else {
      for_each([&](int d, float2 x) {
        put(a, b, d, from_float<Stored>(x.x), from_float<Stored>(x.y));
      });
    }
  }

 private:
  template <typename Stored>
  __device__ static void put(Stored* a, Stored* b, int d, Stored first, Stored second) {
    const Pack<Stored, 2> both{{first, second}};
    *reinterpret_cast<Pack<Stored, 2>*>(a + d) = both;
    if (b != nullptr) *reinterpret_cast<Pack<Stored, 2>*>(b + d) = both;
  }
};

}  // namespace millrace::ops::generation
