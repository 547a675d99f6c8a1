// The specification: exact products, summed in double and rounded to float once, then the epilogue
// in float.
#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/scalar_access.h"
#include "ops/matmul/matmul_cpu.h"

namespace millrace::ops {
namespace {

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

const void* row(const void* data, ir::DType type, int64_t index, int64_t depth) {
  return static_cast<const char*>(data) + index * depth * ir::dtype_size(type);
}

/// x row t * weight row n + its bias.
template <typename X, typename W>
float linear(const MatmulJob& job, int64_t t, int64_t n) {
  const float sum = dot<X, W>(row(job.x, job.x_type, t, job.depth),
                              row(job.weight, job.weight_type, n, job.depth), job.depth);
  return job.bias == nullptr ? sum : sum + load_float(job.bias, job.bias_type, n);
}

template <typename X, typename W>
void multiply(const MatmulJob& job, ThreadPool& pool) {
  constexpr int64_t kGrain = 16;
  pool.parallel_ranges(job.cols, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      for (int64_t t = 0; t < job.rows; ++t) {
        float value = apply_activation(job.activation, linear<X, W>(job, t, n));
        if (job.gated) value *= linear<X, W>(job, t, job.cols + n);
        const int64_t at = t * job.cols + n;
        if (job.residual != nullptr) value += load_float(job.residual, job.x_type, at);
        store_float(job.out, job.out_type, at, value);
      }
    }
  });
}

}  // namespace

double matmul_exact(const Launch& launch, int64_t index) {
  const MatmulJob job = matmul_job(launch);
  const int64_t t = index / job.cols;
  const auto linear_at = [&](int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < job.depth; ++k) {
      sum += static_cast<double>(load_float(job.x, job.x_type, t * job.depth + k)) *
             load_float(job.weight, job.weight_type, n * job.depth + k);
    }
    return job.bias == nullptr ? sum : sum + load_float(job.bias, job.bias_type, n);
  };
  const int64_t n = index % job.cols;
  double value = apply_activation(job.activation, linear_at(n));
  if (job.gated) value *= linear_at(job.cols + n);
  if (job.residual != nullptr) value += load_float(job.residual, job.x_type, index);
  return value;
}

void run_matmul_ref(const Launch& launch) {
  const MatmulJob job = matmul_job(launch);
  with_float_type(job.x_type, [&]<typename X>(TypeTag<X>) {
    with_float_type(job.weight_type,
                    [&]<typename W>(TypeTag<W>) { multiply<X, W>(job, launch.pool()); });
  });
}

}  // namespace millrace::ops
