// What the CUDA kernels for few rows share. They stream the weight from memory once: a block takes
// tiles of neighbouring weight rows, its warps split K, and every lane keeps the loads of two steps
// in flight, also while it waits for the kernel before and while tiles are finished.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ops/matmul/matmul_epilogue_cuda.cuh"

namespace millrace::ops {

inline constexpr int kRowsWarps = 8;
inline constexpr int kRowsThreads = kRowsWarps * kWarp;
inline constexpr int kMaxRowsCuda = 16;

/// 16 bytes that are read once: they pass the first-level cache by. For constants only.
__device__ inline uint4 load_streamed(const void* from) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
}

/// Walks the tiles blockIdx.x, + gridDim.x, ... of this block, `steps` steps each:
///   load(w, tile, step)     issues the loads of a step: constants, before wait_for_predecessor()
///   begin()                 once, when the first loads are in flight: waits, fetches x
///   compute(w, tile, step)  consumes them
///   finish(tile)            after a tile's last step
/// All threads of the block get the same calls.
template <int kLoads, typename Load, typename Begin, typename Compute, typename Finish>
__device__ inline void stream_tiles(int64_t tiles, int steps, const Load& load, const Begin& begin,
                                    const Compute& compute, const Finish& finish) {
  uint4 even[kLoads], odd[kLoads];
  int64_t next_tile = blockIdx.x;
  int next_step = 0;
  const auto fetch = [&](uint4(&w)[kLoads]) {
    if (next_tile >= tiles) return;
    load(w, next_tile, next_step);
    if (++next_step < steps) return;
    next_step = 0;
    next_tile += gridDim.x;
  };
  fetch(even);
  fetch(odd);
  begin();
  int64_t tile = blockIdx.x;
  int step = 0;
  const auto advance = [&](uint4(&w)[kLoads]) {
    compute(w, tile, step);
    fetch(w);
    if (++step < steps) return;
    finish(tile);
    step = 0;
    tile += gridDim.x;
  };
  while (tile < tiles) {
    advance(even);
    if (tile < tiles) advance(odd);
  }
}

/// Two blocks stay on a multiprocessor.
inline unsigned rows_grid(int64_t tiles) {
  return static_cast<unsigned>(std::min<int64_t>(tiles, 2 * device::multiprocessors()));
}

}  // namespace millrace::ops
