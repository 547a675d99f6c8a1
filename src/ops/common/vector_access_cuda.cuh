// Several neighbouring elements to and from floats, 16 bytes an access where they fit.
#pragma once

#include <cstdint>

#include "ops/common/cuda_kernel.h"

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

/// Rounds and writes kCount elements; aligned as for load_floats.
template <int kCount, typename T>
__device__ inline void store_floats(const float* from, T* to) {
  constexpr int kPack = kCount < kPackOf<T> ? kCount : kPackOf<T>;
#pragma unroll
  for (int i = 0; i < kCount; i += kPack) {
    Pack<T, kPack> pack;
#pragma unroll
    for (int j = 0; j < kPack; ++j)
      pack.at[j] = from_float<T>(from[i + j]);
    *reinterpret_cast<Pack<T, kPack>*>(to + i) = pack;
  }
}

/// Blocks of `threads` that cover `count` items.
inline unsigned blocks_for(int64_t count, int threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

}  // namespace millrace::ops
