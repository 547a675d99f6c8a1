// Rotated queries, keys and values of this step, as attention_generation_mma_cuda takes them from
// the product of Q, K and V. Products and sums of a rotation are rounded one by one, as in
// rope_append, so that both give the same bits.
//
// A launch runs this once or twice, with a cold instruction cache. So there is one copy of each
// loop for all rules, and none is unrolled over a head: loading the code would take longer than
// the work. For .cu files.
#pragma once

#include "ops/attention_generation/generation_parts_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops::generation {

/// Elements of a head that a thread takes at once: 16 bytes.
inline constexpr int kPart = 8;

/// Two neighbouring 16-bit elements.
__device__ inline float2 unpack_pair(uint32_t pair, bool is_bf16) {
  if (is_bf16) return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  return __half22float2(reinterpret_cast<const __half2&>(pair));
}
__device__ inline uint32_t pack_as(float first, float second, bool is_bf16) {
  return is_bf16 ? pack_pair<__nv_bfloat16>(first, second) : pack_pair<__half>(first, second);
}

__device__ inline void load_floats(const float* from, float (&to)[kPart]) {
#pragma unroll
  for (int i = 0; i < kPart; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    to[i] = four.x;
    to[i + 1] = four.y;
    to[i + 2] = four.z;
    to[i + 3] = four.w;
  }
}

/// An element by the angle of its pair: x c + other s.
__device__ inline float rotated(float x, float c, float other, float s) {
  return __fadd_rn(__fmul_rn(x, c), __fmul_rn(other, s));
}

/// One head of a row, 16-bit elements, and the row's angles.
struct HeadRow {
  const uint16_t* x;
  const float* angles;  // cosines, then sines
  int rotary_dim;       // a multiple of 16, or of 8 where neighbours are pairs
  bool interleaved, is_bf16;

  __device__ void unpack(int d, float (&to)[kPart]) const {
    const uint4 packed = *reinterpret_cast<const uint4*>(x + d);
    const uint32_t pairs[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = unpack_pair(pairs[i], is_bf16);
      to[2 * i] = pair.x;
      to[2 * i + 1] = pair.y;
    }
  }

  /// Elements d to d + 7, rotated; d is a multiple of 8.
  __device__ void load(int d, float (&x_rotated)[kPart]) const {
    unpack(d, x_rotated);
    if (d >= rotary_dim) return;
    const int half = rotary_dim / 2;
    float other[kPart], c[kPart], s[kPart];
    if (interleaved) {
      const float4 cosines = *reinterpret_cast<const float4*>(angles + d / 2);
      const float4 sines = *reinterpret_cast<const float4*>(angles + half + d / 2);
      const float own_c[4] = {cosines.x, cosines.y, cosines.z, cosines.w};
      const float own_s[4] = {sines.x, sines.y, sines.z, sines.w};
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        other[i] = x_rotated[i ^ 1];
        c[i] = own_c[i / 2];
        s[i] = i % 2 == 0 ? -own_s[i / 2] : own_s[i / 2];
      }
    } else {
      const bool is_first = d < half;
      const int at = is_first ? d : d - half;
      unpack(is_first ? d + half : at, other);
      load_floats(angles + at, c);
      load_floats(angles + half + at, s);
#pragma unroll
      for (int i = 0; i < kPart; ++i)
        s[i] = is_first ? -s[i] : s[i];
    }
#pragma unroll
    for (int i = 0; i < kPart; ++i)
      x_rotated[i] = rotated(x_rotated[i], c[i], other[i], s[i]);
  }
};

__device__ inline uint4 pack_part(const float (&x)[kPart], bool is_bf16) {
  return {pack_as(x[0], x[1], is_bf16), pack_as(x[2], x[3], is_bf16), pack_as(x[4], x[5], is_bf16),
          pack_as(x[6], x[7], is_bf16)};
}

/// Eight elements of 8 bits.
template <typename Stored, typename Convert>
__device__ inline uint2 pack_bytes(const float (&x)[kPart], const Convert& convert) {
  uint32_t words[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < kPart; ++i) {
    const Stored stored = convert(x[i]);
    words[i / 4] |= uint32_t{reinterpret_cast<const uint8_t&>(stored)} << (i % 4 * 8);
  }
  return {words[0], words[1]};
}

/// The largest size among `lanes` neighbouring lanes, a power of two, with kPart elements each.
__device__ inline float largest_of(const float (&x)[kPart], int lanes) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < kPart; ++i)
    largest = larger_size(largest, x[i]);
#pragma unroll 1
  for (int step = 1; step < lanes; step *= 2)
    largest = larger_size(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  return largest;
}

}  // namespace millrace::ops::generation
