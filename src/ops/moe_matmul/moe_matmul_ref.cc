// The specification: each slot by itself, exact products summed in double and rounded once.
#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/scalar_access.h"
#include "ops/moe_matmul/moe_matmul_tactics.h"

namespace millrace::ops {
namespace {

/// Four partial sums: one would wait for itself.
template <typename X, typename W>
double dot(const X* x, const W* w, int64_t depth) {
  double sums[4] = {};
  int64_t k = 0;
  for (; k + 4 <= depth; k += 4) {
    for (int lane = 0; lane < 4; ++lane)
      sums[lane] += double{widen(x[k + lane])} * double{widen(w[k + lane])};
  }
  for (; k < depth; ++k)
    sums[0] += double{widen(x[k])} * double{widen(w[k])};
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename X, typename W>
void multiply(const MoeMatmulJob& job, ThreadPool& pool) {
  pool.parallel_for(job.slots, [&](int64_t slot) {
    const int64_t first = job.ids[slot] * job.cols;  // of the expert's columns
    const X* x = static_cast<const X*>(job.x) + slot / job.slots_per_x * job.depth;
    const W* weight = static_cast<const W*>(job.weight) + first * job.depth;
    for (int64_t n = 0; n < job.cols; ++n) {
      auto value = static_cast<float>(dot(x, weight + n * job.depth, job.depth));
      if (job.bias != nullptr) value += load_float(job.bias, job.bias_type, first + n);
      store_float(job.out, job.out_type, slot * job.cols + n, value);
    }
  });
}

}  // namespace

void moe_matmul_ref(const Launch& launch) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  with_float_type(job.x_type, [&]<typename X>(TypeTag<X>) {
    with_float_type(job.weight_type,
                    [&]<typename W>(TypeTag<W>) { multiply<X, W>(job, launch.pool()); });
  });
}

double moe_matmul_exact(const Launch& launch, int64_t index) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  const int64_t slot = index / job.cols;
  const int64_t row = job.ids[slot] * job.cols + index % job.cols;
  double sum = 0;
  for (int64_t k = 0; k < job.depth; ++k) {
    sum += double{load_float(job.x, job.x_type, slot / job.slots_per_x * job.depth + k)} *
           double{load_float(job.weight, job.weight_type, row * job.depth + k)};
  }
  if (job.bias != nullptr) sum += load_float(job.bias, job.bias_type, row);
  return sum;
}

}  // namespace millrace::ops
