// What matmul_wgmma_cuda.cu needs to run two blocks as a cluster, and the order in which clusters
// take tiles.
#pragma once

#include <cstdint>

#include "ops/common/hopper.cuh"

namespace millrace::ops {

inline constexpr int kClusterBlocks = 2;

/// All threads of both blocks: barriers that were published before it are there after it.
__device__ inline void begin_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/// All threads of both blocks: what they did to shared memory and barriers before it is seen by the
/// other block after it.
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

/// Arrives at the barrier that lies in block `rank` of the cluster where `barrier` lies in this
/// one. Orders reads by products that are over before it, but nothing that this thread wrote: that
/// would be a fence over all memory.
__device__ inline void arrive_in_block(uint32_t barrier, int rank) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

/// Starts to copy a box to both blocks of the cluster, to the same place in each, where the barrier
/// at the same place counts its bytes.
__device__ inline void copy_box_to_both(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                        int x, int y) {
  constexpr uint16_t kBoth = 0b11;
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "h"(kBoth), "r"(x), "r"(y)
      : "memory");
}

__device__ inline void copy_box_to_both(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                        int x, int y, int z, int w) {
  constexpr uint16_t kBoth = 0b11;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5, %6, %7}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "h"(kBoth), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

/// A stage of the ring, and the parity of the phase that its barriers are in.
template <int kStages>
struct RingPlace {
  int slot = 0;
  int phase = 0;

  __device__ void advance() {
    if (++slot < kStages) return;
    slot = 0;
    phase ^= 1;
  }
};

/// The tiles of a product in pairs of neighbours, which a cluster takes together: one tile below
/// the other, of the same weight rows, or side by side, of the same rows of x. Where the number of
/// tiles is odd the last pair's second tile lies outside.
struct TilePairs {
  int height = 0;  // in pairs
  int width = 0;
  bool is_column = false;  // one below the other

  __host__ __device__ int count() const { return height * width; }

  /// The tile of block `rank` in pair `index`, {t, n} in tiles. Eight pairs below each other come
  /// before the next eight beside them, so that clusters that run at the same time share what they
  /// read.
  __device__ int2 place(int index, int rank) const {
    constexpr int kTogether = 8;
    const int part = index / (kTogether * width);
    const int in_part = index - part * kTogether * width;
    const int part_height = min(height - part * kTogether, kTogether);
    const int n = in_part / part_height;
    const int t = part * kTogether + in_part - n * part_height;
    return is_column ? int2{t * kClusterBlocks + rank, n} : int2{t, n * kClusterBlocks + rank};
  }
};

}  // namespace millrace::ops
