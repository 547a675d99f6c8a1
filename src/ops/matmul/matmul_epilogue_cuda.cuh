// What follows the sums on a GPU: out = f(sum + bias) + residual, or, where the product is gated,
// f(gate + bias) * (up + bias). Types are known when the kernel runs: a switch that all threads
// take alike costs less than a kernel for every combination.
#pragma once

#include "ops/common/activation_cuda.cuh"
#include "ops/common/matmul_job.h"
#include "ops/common/vector_access_cuda.cuh"
#include "ops/matmul/matmul_cpu.h"

namespace millrace::ops {

/// Elements as they lie in memory: converting them only when they are used lets their loads fly.
struct EpilogueBits {
  uint32_t bias = 0;
  uint32_t residual = 0;
};

template <typename T>
inline constexpr ir::DType kDTypeOf = ir::DType::kF32;
template <>
inline constexpr ir::DType kDTypeOf<__nv_bfloat16> = ir::DType::kBF16;
template <>
inline constexpr ir::DType kDTypeOf<__half> = ir::DType::kF16;

__device__ inline uint32_t load_bits(const void* data, ir::DType type, int64_t index) {
  if (type == ir::DType::kF32) return static_cast<const uint32_t*>(data)[index];
  return static_cast<const uint16_t*>(data)[index];
}

__device__ inline float bits_to_float(uint32_t bits, ir::DType type) {
  if (type == ir::DType::kF32) return __uint_as_float(bits);
  if (type == ir::DType::kBF16) return __uint_as_float(bits << 16);
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

/// For output [t, n]. After wait_for_predecessor().
__device__ inline EpilogueBits load_epilogue(const MatmulJob& job, int64_t t, int64_t n) {
  EpilogueBits bits;
  if (job.bias != nullptr) bits.bias = load_bits(job.bias, job.bias_type, n);
  if (job.residual != nullptr) {
    bits.residual = load_bits(job.residual, job.x_type, t * job.cols + n);
  }
  return bits;
}

__device__ inline float finish(const MatmulJob& job, const EpilogueBits& bits, float sum) {
  if (job.bias != nullptr) sum += bits_to_float(bits.bias, job.bias_type);
  sum = activate(job.activation, sum);
  if (job.residual != nullptr) sum += bits_to_float(bits.residual, job.x_type);
  return sum;
}

__device__ inline void store_out(const MatmulJob& job, int64_t t, int64_t n, float value) {
  const int64_t at = t * job.cols + n;
  if (job.out_type == ir::DType::kF32) {
    static_cast<float*>(job.out)[at] = value;
  } else if (job.out_type == ir::DType::kBF16) {
    static_cast<__nv_bfloat16*>(job.out)[at] = from_float<__nv_bfloat16>(value);
  } else {
    static_cast<__half*>(job.out)[at] = from_float<__half>(value);
  }
}

/// The whole of it for one output. A call, not a copy for every output of a thread: copies made
/// kernels many times as large. `job` is the kernel's __grid_constant__ parameter.
__device__ __noinline__ static void write_out(const MatmulJob& job, int64_t t, int64_t n,
                                              float sum) {
  store_out(job, t, n, finish(job, load_epilogue(job, t, n), sum));
}

/// Eight neighbours, 16-byte aligned, of any type.
__device__ inline void load_eight(const void* data, ir::DType type, int64_t index, float (&to)[8]) {
  if (type == ir::DType::kF32) {
    load_floats<8>(static_cast<const float*>(data) + index, to);
  } else if (type == ir::DType::kBF16) {
    load_floats<8>(static_cast<const __nv_bfloat16*>(data) + index, to);
  } else {
    load_floats<8>(static_cast<const __half*>(data) + index, to);
  }
}

__device__ __noinline__ static float activate_called(ActivationKind kind, float x) {
  return activate(kind, x);
}

/// f(sums + bias) of eight neighbours from column n on, a multiple of 8.
__device__ inline void activate_eight(const MatmulJob& job, int64_t n, float (&values)[8]) {
  if (job.bias != nullptr) {
    float bias[8];
    load_eight(job.bias, job.bias_type, n, bias);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      values[i] += bias[i];
  }
  if (job.activation != ActivationKind::kNone) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
      values[i] = activate_called(job.activation, values[i]);
  }
}

/// To out[at .. at + 7], 16-byte aligned.
__device__ inline void store_eight(const MatmulJob& job, int64_t at, const float (&values)[8]) {
  if (job.out_type == ir::DType::kF32) {
    store_floats<8>(values, static_cast<float*>(job.out) + at);
  } else if (job.out_type == ir::DType::kBF16) {
    store_floats<8>(values, static_cast<__nv_bfloat16*>(job.out) + at);
  } else {
    store_floats<8>(values, static_cast<__half*>(job.out) + at);
  }
}

/// The whole of it for outputs [t, n .. n + 7]; rows of 8 m outputs, n a multiple of 8.
__device__ inline void write_eight(const MatmulJob& job, int64_t t, int64_t n, const float* sums) {
  float values[8];
  load_floats<8>(sums, values);
  activate_eight(job, n, values);
  const int64_t at = t * job.cols + n;
  if (job.residual != nullptr) {
    float residual[8];
    load_eight(job.residual, job.x_type, at, residual);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      values[i] += residual[i];
  }
  store_eight(job, at, values);
}

/// Outputs [t, n .. n + 3] of a gated product; rows of 8 m outputs, n a multiple of 4.
__device__ __noinline__ static void write_gated_four(const MatmulJob& job, int64_t t, int64_t n,
                                                     const float* gate, const float* up) {
  float values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float g = gate[i], u = up[i];
    if (job.bias != nullptr) {
      g += bits_to_float(load_bits(job.bias, job.bias_type, n + i), job.bias_type);
      u += bits_to_float(load_bits(job.bias, job.bias_type, job.cols + n + i), job.bias_type);
    }
    values[i] = activate_called(job.activation, g) * u;
  }
  const int64_t at = t * job.cols + n;
  if (job.out_type == ir::DType::kF32) {
    store_floats<4>(values, static_cast<float*>(job.out) + at);
  } else if (job.out_type == ir::DType::kBF16) {
    store_floats<4>(values, static_cast<__nv_bfloat16*>(job.out) + at);
  } else {
    store_floats<4>(values, static_cast<__half*>(job.out) + at);
  }
}

/// Host code: `run(T{}, job)` for x of bf16 or f16, unless there is nothing to compute.
template <typename F>
void run_16_bit(const Launch& launch, const F& run) {
  const MatmulJob job = matmul_job(launch);
  if (job.rows == 0 || job.cols == 0) return;
  if (job.x_type == ir::DType::kBF16) {
    run(__nv_bfloat16{}, job);
  } else {
    run(__half{}, job);
  }
}

}  // namespace millrace::ops
