// What kernels do with a HandedNorm. For .cu files.
#pragma once

#include "ops/common/vector_access_cuda.cuh"
#include "ops/matmul/matmul_handed_norm.h"

namespace millrace::ops {

/// Of one warp, after wait_for_predecessor(): factors[t] = 1 / rms of row t of x, which has `depth`
/// columns. Parts are added up in the same order every time, kAtOnce of them (for each four rows)
/// on their way together: more rows need more, or the factors come too late.
template <int kTokens, int kAtOnce>
__device__ inline void find_factors(const HandedNorm& norm, int64_t depth, float* factors) {
  constexpr int kFours = kTokens / 4;  // a lane adds up four rows
  constexpr int kGroups = kWarp / kFours;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, four = lane % kFours;
  const auto* from = reinterpret_cast<const float4*>(norm.x_squares) + four;
  float sum[4] = {};
#pragma unroll 1
  for (int part = lane / kFours; part < norm.x_parts; part += kAtOnce * kGroups) {
    float4 parts[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = part + i * kGroups;
      parts[i] = at < norm.x_parts ? __ldcg(from + int64_t{at} * kFours) : float4{};
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      sum[0] += parts[i].x;
      sum[1] += parts[i].y;
      sum[2] += parts[i].z;
      sum[3] += parts[i].w;
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int step = kFours; step < kWarp; step *= 2)
      sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], step);
    if (lane < kFours)
      factors[four * 4 + i] = rsqrtf(sum[i] / static_cast<float>(depth) + norm.eps);
  }
}

/// Hands on eight neighbouring outputs of a row, scaled[at .. at + 7], 16-byte aligned. Returns the
/// sum of their squares. As the norm would find them, rounded.
template <typename T>
__device__ inline float hand_on(const HandedNorm& norm, int64_t at, const float* weights,
                                const float (&values)[8]) {
  float squares = 0, scaled[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float x = to_float(from_float<T>(values[i]));
    squares = fmaf(x, x, squares);
    scaled[i] = x * (weights[i] + norm.offset);
  }
  store_floats<8>(scaled, static_cast<T*>(norm.scaled) + at);
  return squares;
}

}  // namespace millrace::ops
