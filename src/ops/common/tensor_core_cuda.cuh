// The instructions of tensor core kernels: products of fragments, their loads from shared memory,
// and copies from global to shared memory that run by themselves.
#pragma once

#include <concepts>
#include <cstdint>

#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {

/// sums[16, 8] += a[16, 16] * b[8, 16]^T, T bf16 or f16. With group = lane / 4 and pair = 2 (lane %
/// 4), a lane holds of a: rows group and group + 8 at K = pair, then the same at K = pair + 8; of
/// b: row `group` at K = pair and pair + 8; of the sums: [group, pair], [group, pair + 1], and the
/// same 8 rows below.
template <typename T>
__device__ inline void multiply_add(float (&sums)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[2]) {
  if constexpr (std::same_as<T, __nv_bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

/// Two neighbouring elements of a fragment, T bf16 or f16.
template <typename T>
__device__ inline uint32_t pack_pair(float low, float high) {
  if constexpr (std::same_as<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

/// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(uint32_t (&to)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address)
               : "memory");
}

/// The same, each matrix transposed.
__device__ inline void load_transposed(uint32_t (&to)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address)
               : "memory");
}

/// 16 bytes from global to shared memory, or zeros where `inside` is false.
__device__ inline void copy_async(uint32_t shared_address, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address), "l"(from),
               "r"(inside ? 16 : 0)
               : "memory");
}

/// 16 bytes that are there.
__device__ inline void copy_async(uint32_t shared_address, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address), "l"(from)
               : "memory");
}

/// 4 bytes, or zeros where `inside` is false.
__device__ inline void copy_async_4(uint32_t shared_address, const void* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address), "l"(from),
               "r"(inside ? 4 : 0)
               : "memory");
}

/// Ends a group of this thread's copies.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until at most kGroups groups of this thread's copies are under way.
template <int kGroups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

__device__ inline uint32_t shared_address_of(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

}  // namespace millrace::ops
