// What matmul_stream_cuda.cu needs beside ops/common/hopper.cuh: products with few columns, and
// blocks of a cluster that add up their sums.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda.h>
#include <cuda_fp16.h>

#include "ops/common/cluster_cuda.cuh"

namespace millrace::ops::stream {

/// All threads of the cluster: barriers that were published before it are there after it.
__device__ inline void meet_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// All threads of the cluster, at the end: no arrival at another block's barrier is under way after
/// it. A block that has ended must not be arrived at: the launch would fail.
__device__ inline void leave_cluster() {
  cluster::arrive();
  cluster::wait();
}

/// Arrives at another block's barrier; what this block's threads wrote to shared memory before they
/// met this thread is seen by those who waited with wait_for_blocks().
__device__ inline void hand_over(uint32_t barrier, int rank) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                   cluster::address_in(static_cast<unsigned>(rank), barrier))
               : "memory");
}

/// Arrives at another block's barrier after reads. Hands over nothing, and needs no fence.
__device__ inline void give_back(uint32_t barrier, int rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(
                   cluster::address_in(static_cast<unsigned>(rank), barrier))
               : "memory");
}

__device__ inline void wait_for_blocks(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n"
      "@over bra done;\n"
      "bra again;\n"
      "done:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// Four floats of any block of the cluster.
__device__ inline float4 load_from_block(uint32_t address, int rank) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(cluster::address_in(static_cast<unsigned>(rank), address))
               : "memory");
  return v;
}

/// Starts to copy a box to blocks of the cluster, to the same place in each, where the barrier at
/// the same place counts its bytes.
__device__ inline void copy_box_to_blocks(uint32_t to, const CUtensorMap& map, uint32_t barrier,
                                          int x, int y, uint32_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%4, %5}], [%2], %3;" ::"r"(to),
      "l"(&map), "r"(barrier), "h"(static_cast<uint16_t>(blocks)), "r"(x), "r"(y)
      : "memory");
}

// clang-format off
#define MILLRACE_SUMS_2(i) "+f"(sums[i]), "+f"(sums[(i) + 1])
#define MILLRACE_SUMS_4(i) MILLRACE_SUMS_2(i), MILLRACE_SUMS_2((i) + 2)
#define MILLRACE_SUMS_8(i) MILLRACE_SUMS_4(i), MILLRACE_SUMS_4((i) + 4)
#define MILLRACE_SUMS_16(i) MILLRACE_SUMS_8(i), MILLRACE_SUMS_8((i) + 8)
#define MILLRACE_NAMES_4 "%0, %1, %2, %3"
#define MILLRACE_NAMES_8 MILLRACE_NAMES_4 ", %4, %5, %6, %7"
#define MILLRACE_NAMES_16 MILLRACE_NAMES_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MILLRACE_FEW(type, n, count, a_name, b_name, add_name)                                     \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add_name ", 0;\n"                           \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type                     \
               " {" MILLRACE_NAMES_##count "}, " a_name ", " b_name ", add, 1, 1, 0, 0;\n}\n"      \
               : MILLRACE_SUMS_##count(0) : "l"(a), "l"(b), "r"(static_cast<int>(add)))
// clang-format on

/// hopper::multiply<T, kN, false> for the 8, 16 and 32 columns that it lacks.
template <typename T, int kN>
__device__ inline void multiply_few(float (&sums)[kN / 2], uint64_t a, uint64_t b, bool add) {
  constexpr bool kIsHalf = std::is_same_v<T, __half>;
  if constexpr (kN == 8 && kIsHalf) {
    MILLRACE_FEW("f16", 8, 4, "%4", "%5", "%6");
  } else if constexpr (kN == 8) {
    MILLRACE_FEW("bf16", 8, 4, "%4", "%5", "%6");
  } else if constexpr (kN == 16 && kIsHalf) {
    MILLRACE_FEW("f16", 16, 8, "%8", "%9", "%10");
  } else if constexpr (kN == 16) {
    MILLRACE_FEW("bf16", 16, 8, "%8", "%9", "%10");
  } else if constexpr (kIsHalf) {
    static_assert(kN == 32);
    MILLRACE_FEW("f16", 32, 16, "%16", "%17", "%18");
  } else {
    static_assert(kN == 32);
    MILLRACE_FEW("bf16", 32, 16, "%16", "%17", "%18");
  }
}

#undef MILLRACE_SUMS_2
#undef MILLRACE_SUMS_4
#undef MILLRACE_SUMS_8
#undef MILLRACE_SUMS_16
#undef MILLRACE_NAMES_4
#undef MILLRACE_NAMES_8
#undef MILLRACE_NAMES_16
#undef MILLRACE_FEW

}  // namespace millrace::ops::stream
