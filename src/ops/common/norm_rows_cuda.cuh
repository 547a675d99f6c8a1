// The norms and their fusions with the residual sum: one block per row, the row in registers from
// the only read to the only write. The order of sums depends on the row's width only.
#pragma once

#include <algorithm>

#include "ops/common/norm_call.h"
#include "ops/common/norm_limits.h"
#include "ops/common/weight_access_cuda.cuh"

namespace millrace::ops {

inline constexpr int kNormThreads = 1024;
/// Elements of a row that one thread holds at most.
inline constexpr int kNormHeld = 16;
static_assert(kWidestNormRow == int64_t{kNormThreads} * kNormHeld);

enum class NormKind { kRms, kLayer };

/// Rows of [T, E], or of T * G groups of E/G, and their weights. Without a residual `sum` is null,
/// too; `weight` and `bias` may be null.
template <typename X>
struct NormRows {
  const X* x;
  const X* residual;
  const void* weight;
  const void* bias;
  X* sum;
  X* out;
  int width;
  float eps;
  float weight_offset;
  int groups;
  int weight_stride;  // from the weights of one group to those of the next
  ir::DType weight_type;
};

/// Called before the wait for the kernel before.
template <int kPack, typename X>
__device__ inline void prefetch_weights(const NormRows<X>& rows) {
  if (rows.weight == nullptr) return;
  const int size = rows.weight_type == ir::DType::kF32 ? 4 : 2;
  for (int column = threadIdx.x * kPack; column < rows.width; column += blockDim.x * kPack) {
    prefetch_to_l2(static_cast<const char*>(rows.weight) + int64_t{column} * size);
    if (rows.bias != nullptr)
      prefetch_to_l2(static_cast<const char*>(rows.bias) + int64_t{column} * size);
  }
}

/// Reads this thread's part of row blockIdx.x into `held`, zeros where it has none; writes the
/// residual sum, rounded as the norm will see it.
template <bool kAdd, int kPack, typename X>
__device__ inline void load_row(const NormRows<X>& rows, float (&held)[kNormHeld]) {
  const int64_t row = int64_t{blockIdx.x} * rows.width;
#pragma unroll
  for (int i = 0; i < kNormHeld; i += kPack) {
    const int column =
        (static_cast<int>(threadIdx.x) + i / kPack * static_cast<int>(blockDim.x)) * kPack;
    if (column >= rows.width) {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        held[i + j] = 0;
      continue;
    }
    load_floats<kPack>(rows.x + row + column, held + i);
    if constexpr (kAdd) {
      float residual[kPack];
      load_floats<kPack>(rows.residual + row + column, residual);
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        held[i + j] = to_float(from_float<X>(held[i + j] + residual[j]));
      store_floats<kPack>(held + i, rows.sum + row + column);
    }
  }
}

/// Subtracts `value` from the elements that exist; returns their sum afterwards.
template <int kPack>
__device__ inline float subtract(float value, int width, float (&held)[kNormHeld]) {
  float total = 0;
#pragma unroll
  for (int i = 0; i < kNormHeld; i += kPack) {
    const int column =
        (static_cast<int>(threadIdx.x) + i / kPack * static_cast<int>(blockDim.x)) * kPack;
    if (column >= width) continue;
#pragma unroll
    for (int j = 0; j < kPack; ++j) {
      held[i + j] -= value;
      total += held[i + j];
    }
  }
  return total;
}

template <NormKind kKind, int kPack, typename X>
__device__ inline void store_row(const NormRows<X>& rows, float scale, float (&held)[kNormHeld]) {
  const int64_t row = int64_t{blockIdx.x} * rows.width;
  const int skipped =
      rows.weight_stride == 0 ? 0 : static_cast<int>(blockIdx.x) % rows.groups * rows.weight_stride;
#pragma unroll
  for (int i = 0; i < kNormHeld; i += kPack) {
    const int column =
        (static_cast<int>(threadIdx.x) + i / kPack * static_cast<int>(blockDim.x)) * kPack;
    if (column >= rows.width) continue;
    float weight[kPack];
    if (rows.weight != nullptr) {
      load_weights<kPack>(rows.weight, rows.weight_type, skipped + column, weight);
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        held[i + j] = held[i + j] * scale * (weight[j] + rows.weight_offset);
    } else {
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        held[i + j] *= scale;
    }
    if (kKind == NormKind::kLayer && rows.bias != nullptr) {
      load_weights<kPack>(rows.bias, rows.weight_type, skipped + column, weight);
#pragma unroll
      for (int j = 0; j < kPack; ++j)
        held[i + j] += weight[j];
    }
    store_floats<kPack>(held + i, rows.out + row + column);
  }
}

template <NormKind kKind, bool kAdd, int kPack, typename X>
__global__ void __launch_bounds__(kNormThreads) norm_rows_kernel(NormRows<X> rows) {
  __shared__ float scratch[kWarp];
  device::let_successor_start();
  prefetch_weights<kPack>(rows);
  device::wait_for_predecessor();
  float held[kNormHeld];
  load_row<kAdd, kPack>(rows, held);
  const float width = static_cast<float>(rows.width);
  if constexpr (kKind == NormKind::kLayer) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < kNormHeld; ++i)
      total += held[i];
    // Rounding the mean costs much where it is far from zero: what it missed is taken off, too.
    const float missed = subtract<kPack>(block_sum(total, scratch) / width, rows.width, held);
    subtract<kPack>(block_sum(missed, scratch) / width, rows.width, held);
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kNormHeld; ++i)
    squares += held[i] * held[i];
  const float scale = 1.0F / sqrtf(block_sum(squares, scratch) / width + rows.eps);
  store_row<kKind, kPack>(rows, scale, held);
}

template <NormKind kKind, bool kAdd, int kPack, typename X>
void launch_norm_rows(const Launch& launch, const char* name, const NormRows<X>& rows,
                      int64_t count) {
  const int64_t packs = (rows.width + kPack - 1) / kPack;
  const int64_t threads = std::min<int64_t>((packs + kWarp - 1) / kWarp * kWarp, kNormThreads);
  device::launch_kernel(name, *launch.queue, dim3(static_cast<unsigned>(count)),
                        dim3(static_cast<unsigned>(threads)), 0,
                        norm_rows_kernel<kKind, kAdd, kPack, X>, rows);
}

/// Runs a norm op; `kAdd`: it adds a residual first.
template <NormKind kKind, bool kAdd>
void norm_rows_cuda(const Launch& launch, const char* name, const NormOptions& options) {
  const NormCall call = norm_call(launch, kAdd, options);
  if (call.x->count() == 0) return;
  with_float_type(call.x->dtype, [&]<typename X>(X) {
    const NormRows<X> rows = {.x = call.x->as<X>(),
                              .residual = kAdd ? call.residual->as<X>() : nullptr,
                              .weight = call.weight == nullptr ? nullptr : call.weight->data,
                              .bias = call.bias == nullptr ? nullptr : call.bias->data,
                              .sum = kAdd ? call.sum->as<X>() : nullptr,
                              .out = call.out->as<X>(),
                              .width = static_cast<int>(call.width),
                              .eps = static_cast<float>(options.eps),
                              .weight_offset = static_cast<float>(options.weight_offset),
                              .groups = static_cast<int>(call.groups),
                              .weight_stride = static_cast<int>(call.weight_stride),
                              .weight_type = call.weight_type()};
    const bool packed =
        rows.width % kPackOf<X> == 0 && aligned_to_16(rows.x, rows.residual, rows.sum, rows.out) &&
        aligned_to_16(static_cast<const char*>(rows.weight), static_cast<const char*>(rows.bias));
    if (packed) {
      launch_norm_rows<kKind, kAdd, kPackOf<X>>(launch, name, rows, call.rows);
    } else {
      launch_norm_rows<kKind, kAdd, 1>(launch, name, rows, call.rows);
    }
  });
}

}  // namespace millrace::ops
