// The specification: exact products, summed in double and rounded to float once, then the epilogue
// in float.
#include <cmath>
#include <vector>

#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/norm_rows.h"
#include "ops/common/scalar_access.h"
#include "ops/matmul/matmul.h"
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

/// rms_norm(x) to `to` [T, K], in x's type.
template <typename X>
void normalise(const MatmulJob& job, const MatmulNorm& norm, X* to) {
  with_float_type(norm.type, [&]<typename W>(TypeTag<W>) {
    const NormWeights<W> weights{static_cast<const W*>(norm.weight), nullptr, norm.offset};
    for (int64_t t = 0; t < job.rows; ++t) {
      rms_norm_row_ref(static_cast<const X*>(job.x) + t * job.depth, weights, to + t * job.depth,
                       job.depth, norm.eps);
    }
  });
}

/// Row t of what is multiplied. The norm rounds it, so that is what an exact product is of.
std::vector<double> exact_row(const MatmulJob& job, const MatmulNorm& norm, int64_t t) {
  const auto x = [&](int64_t k) -> double {
    return load_float(job.x, job.x_type, t * job.depth + k);
  };
  std::vector<double> row(static_cast<size_t>(job.depth));
  double squares = 0;
  for (int64_t k = 0; k < job.depth; ++k)
    squares += x(k) * x(k);
  const double scale = 1 / std::sqrt(squares / static_cast<double>(job.depth) + norm.eps);
  for (int64_t k = 0; k < job.depth; ++k) {
    double& value = row[static_cast<size_t>(k)];
    value = x(k);
    if (norm.weight == nullptr) continue;
    value *= scale * (load_float(norm.weight, norm.type, k) + double{norm.offset});
    float rounded = 0;
    store_float(&rounded, job.x_type, 0, static_cast<float>(value));
    value = load_float(&rounded, job.x_type, 0);
  }
  return row;
}

}  // namespace

double matmul_exact(const Launch& launch, int64_t index) {
  const MatmulJob job = matmul_job(launch);
  const int64_t t = index / job.cols;
  const std::vector<double> x = exact_row(job, matmul_norm(launch), t);
  const auto linear_at = [&](int64_t n) {
    double sum = 0;
    for (int64_t k = 0; k < job.depth; ++k)
      sum += x[static_cast<size_t>(k)] * load_float(job.weight, job.weight_type, n * job.depth + k);
    return job.bias == nullptr ? sum : sum + load_float(job.bias, job.bias_type, n);
  };
  const int64_t n = index % job.cols;
  double value = apply_activation(job.activation, linear_at(n));
  if (job.gated) value *= linear_at(job.cols + n);
  if (job.residual != nullptr) value += load_float(job.residual, job.x_type, index);
  return value;
}

int64_t matmul_ref_workspace(const Launch& launch, const device::Properties&) {
  return launch.attrs<Matmul>().normed() ? launch.in[0].bytes() : 0;
}

void run_matmul_ref(const Launch& launch) {
  MatmulJob job = matmul_job(launch);
  const MatmulNorm norm = matmul_norm(launch);
  with_float_type(job.x_type, [&]<typename X>(TypeTag<X>) {
    if (norm.weight != nullptr) {
      normalise(job, norm, static_cast<X*>(launch.workspace));
      job.x = launch.workspace;
    }
    with_float_type(job.weight_type,
                    [&]<typename W>(TypeTag<W>) { multiply<X, W>(job, launch.pool()); });
  });
}

}  // namespace millrace::ops
