// Hopper's asynchronous instructions (sm_90a): barriers in shared memory, box copies (TMA), matrix
// products of a warpgroup (wgmma), named barriers, registers given from one warpgroup to another.
// For .cu files; addresses in shared memory are 32-bit.
#pragma once

#include <cstdint>
#include <type_traits>

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace millrace::ops::hopper {

inline constexpr int kWarpgroup = 128;
inline constexpr int kSwizzledRow = 128;  // bytes of a row of a 128-byte swizzled box

__device__ inline uint32_t address_in_shared(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Barriers: 8 bytes each. A phase ends when `count` arrivals and all announced bytes have come;
// wait_barrier(barrier, p) returns once the phase of parity p is over, the first one has parity 0.

__device__ inline void init_barrier(uint32_t barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

/// Makes initialised barriers known to the copy engine. Before the block's first __syncthreads().
__device__ inline void publish_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives, and lets the phase last until `bytes` more were copied.
__device__ inline void arrive_expecting(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ inline void wait_barrier(uint32_t barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@over bra done;\n"
      "bra again;\n"
      "done:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

/// Whether that phase is over; does not wait.
__device__ inline bool is_over(uint32_t barrier, int parity) {
  uint32_t over;
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 over, [%1], %2;\n"
      "selp.u32 %0, 1, 0, over;\n"
      "}\n"
      : "=r"(over)
      : "r"(barrier), "r"(parity)
      : "memory");
  return over != 0;
}

__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// Starts to copy a box to shared memory; `barrier` counts its bytes.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier, int x,
                                int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y)
      : "memory");
}

__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier, int x, int y,
                                int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
      : "memory");
}

__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier, int x, int y,
                                int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

__device__ inline void copy_box(uint32_t to, const CUtensorMap& map, uint32_t barrier, int x, int y,
                                int z, int w, int v) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v)
      : "memory");
}

/// Orders this thread's ordinary accesses of shared memory before later ones by copies and
/// products.
__device__ inline void order_before_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/// Named barriers 1 to 15 (0 is __syncthreads): all `threads` arrive, some of them wait.
__device__ inline void sync_named(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ inline void arrive_named(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Registers per thread, a multiple of 8, for all warps of a warpgroup.
template <int kRegisters>
__device__ inline void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Matrix descriptors, for 16-bit elements in boxes with 128-byte swizzle: rows of 64 elements,
// groups of 8 rows (1024 bytes, so aligned) behind each other.

__device__ inline uint64_t matrix_descriptor(uint32_t address, uint32_t leading, uint32_t stride) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return kSwizzle128 | uint64_t{stride >> 4} << 32 | uint64_t{leading >> 4} << 16 |
         ((address & 0x3ffff) >> 4);
}

/// A or B whose rows run along the summed dimension (K-major): row m of A or n of B is a row of the
/// box. The next 16 elements of the sum lie 32 bytes further (64 of them in a box).
__device__ inline uint64_t k_major(uint32_t address) {
  return matrix_descriptor(address, 16, 8 * kSwizzledRow);
}

/// B whose rows run along n (MN-major): row k of B is a row of the box, the next 64 columns lie
/// `box_bytes` further. The next 16 rows of the sum lie 16 rows further.
__device__ inline uint64_t n_major(uint32_t address, uint32_t box_bytes) {
  return matrix_descriptor(address, box_bytes, 8 * kSwizzledRow);
}

/// Before the first product, and where registers of a product were written since the last one.
__device__ inline void start_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// Waits until at most kLeft committed groups are under way.
template <int kLeft>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

/// Keeps the compiler from moving uses of these registers over waits and fences.
template <int kCount>
__device__ inline void pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    asm volatile("" : "+f"(registers[i])::"memory");
}

// clang-format off
#define MILLRACE_SUMS_32(d, i)                                                                     \
  "+f"(d[(i) + 0]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]),                          \
  "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), "+f"(d[(i) + 7]),                          \
  "+f"(d[(i) + 8]), "+f"(d[(i) + 9]), "+f"(d[(i) + 10]), "+f"(d[(i) + 11]),                        \
  "+f"(d[(i) + 12]), "+f"(d[(i) + 13]), "+f"(d[(i) + 14]), "+f"(d[(i) + 15]),                      \
  "+f"(d[(i) + 16]), "+f"(d[(i) + 17]), "+f"(d[(i) + 18]), "+f"(d[(i) + 19]),                      \
  "+f"(d[(i) + 20]), "+f"(d[(i) + 21]), "+f"(d[(i) + 22]), "+f"(d[(i) + 23]),                      \
  "+f"(d[(i) + 24]), "+f"(d[(i) + 25]), "+f"(d[(i) + 26]), "+f"(d[(i) + 27]),                      \
  "+f"(d[(i) + 28]), "+f"(d[(i) + 29]), "+f"(d[(i) + 30]), "+f"(d[(i) + 31])
#define MILLRACE_SUMS_64(d, i) MILLRACE_SUMS_32(d, i), MILLRACE_SUMS_32(d, (i) + 32)
#define MILLRACE_SUMS_96(d, i) MILLRACE_SUMS_64(d, i), MILLRACE_SUMS_32(d, (i) + 64)
#define MILLRACE_SUMS_8(d, i)                                                                      \
  "+f"(d[(i) + 0]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3]),                          \
  "+f"(d[(i) + 4]), "+f"(d[(i) + 5]), "+f"(d[(i) + 6]), "+f"(d[(i) + 7])
#define MILLRACE_SUMS_56(d, i)                                                                     \
  MILLRACE_SUMS_32(d, i), MILLRACE_SUMS_8(d, (i) + 32), MILLRACE_SUMS_8(d, (i) + 40),              \
  MILLRACE_SUMS_8(d, (i) + 48)
#define MILLRACE_SUMS_72(d, i) MILLRACE_SUMS_64(d, i), MILLRACE_SUMS_8(d, (i) + 64)
#define MILLRACE_SUMS_104(d, i) MILLRACE_SUMS_96(d, i), MILLRACE_SUMS_8(d, (i) + 96)
#define MILLRACE_SUMS_112(d, i) MILLRACE_SUMS_104(d, i), MILLRACE_SUMS_8(d, (i) + 104)
#define MILLRACE_SUMS_128(d, i) MILLRACE_SUMS_64(d, i), MILLRACE_SUMS_64(d, (i) + 64)
#define MILLRACE_NAMES_TO_32                                                                       \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, "          \
  "%19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define MILLRACE_NAMES_TO_64                                                                       \
  MILLRACE_NAMES_TO_32 ", "                                                                        \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "          \
  "%49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define MILLRACE_NAMES_TO_96                                                                       \
  MILLRACE_NAMES_TO_64 ", "                                                                        \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "     \
  "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define MILLRACE_NAMES_TO_56                                                                       \
  MILLRACE_NAMES_TO_32 ", "                                                                        \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, "          \
  "%49, %50, %51, %52, %53, %54, %55"
#define MILLRACE_NAMES_TO_72                                                                       \
  MILLRACE_NAMES_TO_64 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define MILLRACE_NAMES_TO_104                                                                      \
  MILLRACE_NAMES_TO_96 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define MILLRACE_NAMES_TO_112                                                                      \
  MILLRACE_NAMES_TO_104 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define MILLRACE_NAMES_TO_128                                                                      \
  MILLRACE_NAMES_TO_96 ", "                                                                        \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "         \
  "%111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, "     \
  "%126, %127"
#define MILLRACE_PRODUCT(type, n, count, a, b, add, trans, ...)                                    \
  asm volatile("{\n.reg .pred add;\nsetp.ne.b32 add, " add ", 0;\n"                                \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type                     \
               " {" MILLRACE_NAMES_TO_##count "}, " a ", " b ", add, 1, 1, " trans ";\n}\n"        \
               : MILLRACE_SUMS_##count(sums, 0) : __VA_ARGS__)
#define MILLRACE_PRODUCT_OF(T, ...)                                                                \
  if constexpr (std::is_same_v<T, __half>)                                                         \
    MILLRACE_PRODUCT("f16", __VA_ARGS__);                                                          \
  else                                                                                             \
    MILLRACE_PRODUCT("bf16", __VA_ARGS__)
// clang-format on

/// sums [64, kN] of the warpgroup = (add ? sums : 0) + A [64, 16] * B [16, kN], A in shared memory
/// (K-major). In fragments a thread has rows 16 * warp + lane / 4 and 8 below; sums[4 * i + 2 * r +
/// c] is row r, column 8 * i + 2 * (lane % 4) + c.
template <typename T, int kN, bool kNMajorB>
__device__ inline void multiply(float (&sums)[kN / 2], uint64_t a, uint64_t b, bool add) {
  if constexpr (kN == 64) {
    MILLRACE_PRODUCT_OF(T, 64, 32, "%32", "%33", "%34", "0, %35", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 128) {
    MILLRACE_PRODUCT_OF(T, 128, 64, "%64", "%65", "%66", "0, %67", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 112) {
    MILLRACE_PRODUCT_OF(T, 112, 56, "%56", "%57", "%58", "0, %59", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 144) {
    MILLRACE_PRODUCT_OF(T, 144, 72, "%72", "%73", "%74", "0, %75", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 208) {
    MILLRACE_PRODUCT_OF(T, 208, 104, "%104", "%105", "%106", "0, %107", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 192) {
    MILLRACE_PRODUCT_OF(T, 192, 96, "%96", "%97", "%98", "0, %99", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 224) {
    MILLRACE_PRODUCT_OF(T, 224, 112, "%112", "%113", "%114", "0, %115", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  } else {
    static_assert(kN == 256);
    MILLRACE_PRODUCT_OF(T, 256, 128, "%128", "%129", "%130", "0, %131", "l"(a), "l"(b),
                        "r"(static_cast<int>(add)), "n"(kNMajorB ? 1 : 0));
  }
}

/// A in registers: a[j] has elements 2 * (lane % 4) and the next one, of row lane / 4 + 8 * (j %
/// 2), from element 8 * (j / 2) on. These are the sums of a product before, packed in pairs.
template <typename T, int kN, bool kNMajorB>
__device__ inline void multiply(float (&sums)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                                bool add) {
  if constexpr (kN == 64) {
    MILLRACE_PRODUCT_OF(T, 64, 32, "{%32, %33, %34, %35}", "%36", "%37", "%38", "r"(a[0]),
                        "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
                        "n"(kNMajorB ? 1 : 0));
  } else if constexpr (kN == 128) {
    MILLRACE_PRODUCT_OF(T, 128, 64, "{%64, %65, %66, %67}", "%68", "%69", "%70", "r"(a[0]),
                        "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
                        "n"(kNMajorB ? 1 : 0));
  } else {
    static_assert(kN == 256);
    MILLRACE_PRODUCT_OF(T, 256, 128, "{%128, %129, %130, %131}", "%132", "%133", "%134", "r"(a[0]),
                        "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)),
                        "n"(kNMajorB ? 1 : 0));
  }
}

#undef MILLRACE_NAMES_TO_32
#undef MILLRACE_NAMES_TO_64
#undef MILLRACE_NAMES_TO_96
#undef MILLRACE_NAMES_TO_56
#undef MILLRACE_NAMES_TO_72
#undef MILLRACE_NAMES_TO_104
#undef MILLRACE_NAMES_TO_112
#undef MILLRACE_NAMES_TO_128
#undef MILLRACE_SUMS_32
#undef MILLRACE_SUMS_64
#undef MILLRACE_SUMS_96
#undef MILLRACE_SUMS_8
#undef MILLRACE_SUMS_56
#undef MILLRACE_SUMS_72
#undef MILLRACE_SUMS_104
#undef MILLRACE_SUMS_112
#undef MILLRACE_SUMS_128
#undef MILLRACE_PRODUCT
#undef MILLRACE_PRODUCT_OF

}  // namespace millrace::ops::hopper
