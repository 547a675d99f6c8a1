// What CUDA kernels of ops share: element types, 16-byte accesses, reductions. For .cu files.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/check.h"
#include "device/cuda/launch.h"
#include "ops/op.h"

namespace millrace::ops {

inline constexpr int kWarp = 32;

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}

/// Rounds to nearest, ties to even.
template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

/// `count` elements moved by one access; count * sizeof(T) is at most 16.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};

/// Elements of T in 16 bytes.
template <typename T>
inline constexpr int kPackOf = 16 / static_cast<int>(sizeof(T));

__device__ inline float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

/// Sum over all threads of the block, in every thread, in an order that depends on the block's size
/// only. `scratch` has 32 floats of shared memory; blockDim.x is a multiple of 32.
__device__ inline float block_sum(float x, float* scratch) {
  x = warp_sum(x);
  __syncthreads();  // scratch may still be read by the call before
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  float total = 0;
  for (unsigned i = 0; i < blockDim.x / kWarp; ++i)
    total += scratch[i];
  return total;
}

/// Calls `function` with a value of the C++ type behind a float dtype: `with_float_type(x.dtype,
/// [&]<typename T>(T) { ... })`.
template <typename F>
void with_float_type(ir::DType dtype, F&& function) {
  switch (dtype) {
    case ir::DType::kF32:
      return function(float{});
    case ir::DType::kBF16:
      return function(__nv_bfloat16{});
    case ir::DType::kF16:
      return function(__half{});
    default:
      CHECK(false, "no kernel for ", ir::dtype_name(dtype));
  }
}

}  // namespace millrace::ops
