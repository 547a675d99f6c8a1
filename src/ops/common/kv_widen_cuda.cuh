// 8-bit elements of a KV cache on their way to tensor cores: four bytes become two pairs of halves,
// which hold every value of int8 and of e4m3. What they are multiplied by becomes halves too, in
// units of a power of two, so that none is too large or too small. For .cu files.
#pragma once

#include <bit>
#include <type_traits>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/kv_types.h"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops {

/// Which elements are a pair: 0 and 1, then 2 and 3; or 0 and 2, then 1 and 3.
enum class Pairs { kNeighbours, kAlternate };

/// Two of e4m3, in bits 0 to 7 and 16 to 23, where there is no instruction for it: a half with
/// their bits is smaller by the difference of the exponents' biases.
__device__ inline uint32_t halves_of_spread_fp8(uint32_t two) {
  const uint32_t bits = (two & 0x800080u) << 8 | (two & 0x7f007fu) << 7;
  const __half2 larger =
      __hmul2(reinterpret_cast<const __half2&>(bits), __half2half2(__float2half(256.0F)));
  uint32_t halves = reinterpret_cast<const uint32_t&>(larger);
  if ((two & 0x7fu) == 0x7fu) halves |= 0x7e00u;  // no number
  if ((two & 0x7f0000u) == 0x7f0000u) halves |= 0x7e000000u;
  return halves;
}

/// Four of e4m3. From compute capability 8.9 on an instruction each takes the lower and the upper
/// two.
__device__ inline uint2 halves_of_fp8(uint32_t four) {
#if __CUDA_ARCH__ < 890
  return {halves_of_spread_fp8(__byte_perm(four, 0, 0x4140)),
          halves_of_spread_fp8(__byte_perm(four, 0, 0x4342))};
#else
  uint2 halves;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "mov.b32 {low, high}, %2;\n"
      "cvt.rn.f16x2.e4m3x2 %0, low;\n"
      "cvt.rn.f16x2.e4m3x2 %1, high;\n"
      "}\n"
      : "=r"(halves.x), "=r"(halves.y)
      : "r"(four));
  return halves;
#endif
}

/// A byte behind 0x64 is a half that is 1024 larger than the byte.
__device__ inline uint32_t halves_of_int8(uint32_t behind_0x64) {
  const __half2 sum = reinterpret_cast<const __half2&>(behind_0x64);
  const __half2 pair = __hsub2(sum, __half2half2(__ushort_as_half(0x6480)));  // 1024 + 128
  return reinterpret_cast<const uint32_t&>(pair);
}

template <typename Stored, Pairs kPairs>
__device__ inline uint2 widen_four(uint32_t four) {
  constexpr bool kAlternate = kPairs == Pairs::kAlternate;
  if constexpr (std::is_same_v<Stored, KvFp8>) {
    return halves_of_fp8(kAlternate ? __byte_perm(four, 0, 0x3120) : four);
  } else {
    const uint32_t biased = four ^ 0x80808080u;  // by 128
    return {halves_of_int8(__byte_perm(biased, 0x64646464u, kAlternate ? 0x4240 : 0x4140)),
            halves_of_int8(__byte_perm(biased, 0x64646464u, kAlternate ? 0x4341 : 0x4342))};
  }
}

/// Four neighbours as pairs of T, bf16 or f16.
template <typename T, typename Stored>
__device__ inline uint2 widen_four_to(uint32_t four) {
  const uint2 halves = widen_four<Stored, Pairs::kNeighbours>(four);
  if constexpr (std::is_same_v<T, __half>) return halves;
  const float2 low = __half22float2(reinterpret_cast<const __half2&>(halves.x));
  const float2 high = __half22float2(reinterpret_cast<const __half2&>(halves.y));
  return {pack_pair<T>(low.x, low.y), pack_pair<T>(high.x, high.y)};
}

/// Operand A of a product [16, 8] from what ldmatrix gave of two matrices of 8 rows (neighbours)
/// or, transposed, of 8 columns (alternate): see multiply_add(). A row's elements 4 (lane % 4) + 0,
/// 1 are then where K = 2 (lane % 4) + 0, 1 are, and those after at K + 8; a column's, at 2 (lane /
/// 4) and the next one, are rows lane / 4 and lane / 4 + 8.
template <typename Stored, Pairs kPairs>
__device__ inline void widen_operand(uint32_t first, uint32_t second, uint32_t (&to)[4]) {
  const uint2 a = widen_four<Stored, kPairs>(first), b = widen_four<Stored, kPairs>(second);
  to[0] = a.x;
  to[1] = kPairs == Pairs::kNeighbours ? b.x : a.y;
  to[2] = kPairs == Pairs::kNeighbours ? a.y : b.x;
  to[3] = b.y;
}

/// The largest power of two that is not above a positive number, and its inverse.
struct PowerOfTwo {
  float value;

  __device__ explicit PowerOfTwo(float x)
      : value(std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7f800000u)) {}
  __device__ float inverse() const {
    return std::bit_cast<float>((254u << 23) - std::bit_cast<uint32_t>(value));
  }
};

/// A power of two that is smaller than any that matters, and has an inverse.
inline constexpr float kSmallestUnit = 0x1p-100F;

__device__ inline float2 to_floats(uint32_t pair, bool is_bf16) {
  if (is_bf16) return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}

/// Pairs of bf16 or f16, of one row in four neighbouring lanes, become halves; returns their unit.
template <int kSteps>
__device__ inline float queries_to_halves(uint32_t (&pairs)[kSteps][2], bool is_bf16) {
  float largest = kSmallestUnit;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 x = to_floats(pairs[step][half], is_bf16);
      largest = fmaxf(largest, fmaxf(fabsf(x.x), fabsf(x.y)));
    }
  }
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
  const PowerOfTwo unit(largest);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 x = to_floats(pairs[step][half], is_bf16);
      pairs[step][half] = pack_pair<__half>(x.x * unit.inverse(), x.y * unit.inverse());
    }
  }
  return unit.value;
}

}  // namespace millrace::ops
