// Several neighbouring elements to and from floats, 16 bytes an access where they fit.
#pragma once

#include <cstdint>

#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {

/// Whether 16-byte accesses may start at every one of the pointers.
template <typename... P>
bool aligned_to_16(const P*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % 16 == 0) && ...);
}

/// Reads kCount elements. `from` is aligned to kCount elements or 16 bytes, whichever is less.
template <int kCount, typename T>
__device__ inline void load_floats(const T* from, float* to) {
  constexpr int kPack = kCount < kPackOf<T> ? kCount : kPackOf<T>;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    const auto pack = *reinterpret_cast<const Pack<T, kPack>*>(from + i);
#pragma unroll
    for (int j = 0; j < kPack; ++j)
      to[i + j] = to_float(pack.at[j]);
  }
}

/// Writes a pack to global memory by one instruction. nvcc takes the assignment of a pack, and of a
/// uint4, apart into its elements where it stands under a condition, and does not always put them
/// together again.
template <typename T, int kCount>
__device__ inline void store_pack(const Pack<T, kCount>& pack, T* to) {
  if constexpr (sizeof(pack) == 16) {
    const auto word = __builtin_bit_cast(uint4, pack);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)),
                 "r"(word.x), "r"(word.y), "r"(word.z), "r"(word.w)
                 : "memory");
  } else if constexpr (sizeof(pack) == 8) {
    const auto word = __builtin_bit_cast(uint2, pack);
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(to)),
                 "r"(word.x), "r"(word.y)
                 : "memory");
  } else {
    *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
  }
}

/// Rounds and writes kCount elements to global memory; aligned as for load_floats.
template <int kCount, typename T>
__device__ inline void store_floats(const float* from, T* to) {
  constexpr int kPack = kCount < kPackOf<T> ? kCount : kPackOf<T>;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    Pack<T, kPack> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j)
      pack.at[j] = from_float<T>(from[i + j]);
    store_pack(pack, to + i);
  }
}

/// Blocks of `threads` that cover `count` items.
inline unsigned blocks_for(int64_t count, int threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

}  // namespace millrace::ops
