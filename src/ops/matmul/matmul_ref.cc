// The specification: exact products, summed in double and rounded to float once, then the epilogue
// in float.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/thread_pool.h"
#include "ops/matmul/matmul_cpu.h"

namespace millrace::ops {
namespace {

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

float widen(float value) {
  return value;
}
float widen(BF16 value) {
  return ir::bf16_to_float(value.bits);
}
float widen(F16 value) {
  return ir::f16_to_float(value.bits);
}

/// Eight partial sums, added in a fixed order: fewer rounding errors than one, and no chain of
/// waiting additions.
template <typename X, typename W>
float dot(const void* x_row, const void* weight_row, int64_t depth) {
  constexpr int kLanes = 8;
  const auto* x = static_cast<const X*>(x_row);
  const auto* w = static_cast<const W*>(weight_row);
  double sums[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane)
      sums[lane] += static_cast<double>(widen(x[k + lane])) * widen(w[k + lane]);
  }
  for (; k < depth; ++k)
    sums[k % kLanes] += static_cast<double>(widen(x[k])) * widen(w[k]);
  const double low = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const double high = (sums[4] + sums[5]) + (sums[6] + sums[7]);
  return static_cast<float>(low + high);
}

using Dot = float (*)(const void* x_row, const void* weight_row, int64_t depth);

template <typename X>
Dot dot_for(ir::DType weight_type) {
  switch (weight_type) {
    case ir::DType::kF32:
      return dot<X, float>;
    case ir::DType::kBF16:
      return dot<X, BF16>;
    case ir::DType::kF16:
      return dot<X, F16>;
    default:
      return nullptr;
  }
}

Dot dot_for(ir::DType x_type, ir::DType weight_type) {
  switch (x_type) {
    case ir::DType::kF32:
      return dot_for<float>(weight_type);
    case ir::DType::kBF16:
      return dot_for<BF16>(weight_type);
    case ir::DType::kF16:
      return dot_for<F16>(weight_type);
    default:
      return nullptr;
  }
}

float load(ir::DType type, const void* data, int64_t i) {
  switch (type) {
    case ir::DType::kBF16:
      return widen(static_cast<const BF16*>(data)[i]);
    case ir::DType::kF16:
      return widen(static_cast<const F16*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

void store(ir::DType type, void* data, int64_t i, float value) {
  switch (type) {
    case ir::DType::kBF16:
      static_cast<uint16_t*>(data)[i] = ir::float_to_bf16(value);
      break;
    case ir::DType::kF16:
      static_cast<uint16_t*>(data)[i] = ir::float_to_f16(value);
      break;
    default:
      static_cast<float*>(data)[i] = value;
      break;
  }
}

const void* row(const void* data, ir::DType type, int64_t index, int64_t depth) {
  return static_cast<const char*>(data) + index * depth * ir::dtype_size(type);
}

double activate(ActivationKind kind, double v) {
  switch (kind) {
    case ActivationKind::kSilu:
      return v / (1 + std::exp(-v));
    case ActivationKind::kGelu:
      return v / 2 * std::erfc(-v * std::numbers::sqrt2 / 2);
    case ActivationKind::kGeluTanh: {
      const double u =
          2 * std::numbers::inv_sqrtpi / std::numbers::sqrt2 * (v + 0.044715 * v * v * v);
      return v / 2 * (1 + std::tanh(u));
    }
    case ActivationKind::kRelu:
      return std::max(v, 0.0);
    case ActivationKind::kNone:
      break;
  }
  return v;
}

}  // namespace

double matmul_exact(const Launch& launch, int64_t index) {
  const MatmulJob job = matmul_job(launch);
  const int64_t t = index / job.cols;
  const int64_t n = index % job.cols;
  double sum = 0;
  for (int64_t k = 0; k < job.depth; ++k) {
    sum += static_cast<double>(load(job.x_type, job.x, t * job.depth + k)) *
           load(job.weight_type, job.weight, n * job.depth + k);
  }
  if (job.bias != nullptr) sum += load(job.bias_type, job.bias, n);
  sum = activate(job.activation, sum);
  if (job.residual != nullptr) sum += load(job.x_type, job.residual, index);
  return sum;
}

void run_matmul_ref(const Launch& launch) {
  const MatmulJob job = matmul_job(launch);
  const Dot dot_rows = dot_for(job.x_type, job.weight_type);
  CHECK(dot_rows != nullptr, "matmul of ", ir::dtype_name(job.x_type), " and ",
        ir::dtype_name(job.weight_type));
  constexpr int64_t kGrain = 16;
  launch.pool().parallel_ranges(job.cols, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const void* weight_row = row(job.weight, job.weight_type, n, job.depth);
      for (int64_t t = 0; t < job.rows; ++t) {
        float value = dot_rows(row(job.x, job.x_type, t, job.depth), weight_row, job.depth);
        if (job.bias != nullptr) value += load(job.bias_type, job.bias, n);
        value = apply_activation(job.activation, value);
        const int64_t at = t * job.cols + n;
        if (job.residual != nullptr) value += load(job.x_type, job.residual, at);
        store(job.out_type, job.out, at, value);
      }
    }
  });
}

}  // namespace millrace::ops
