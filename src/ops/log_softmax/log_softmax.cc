#include "ops/log_softmax/log_softmax.h"

#include <cmath>

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/log_softmax/log_softmax_row.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(LogSoftmax::kName, types, {"x"});
  in.expect_dtype(0, ir::DType::kF32);
  in.expect_rank(0, 2);
  return {in.type(0)};
}

/// Read for the maximum, the sum and the result, the last two times from a cache.
Cost cost(const Launch& launch) {
  const auto elements = static_cast<double>(launch.in[0].count());
  return {.bytes = 8 * elements, .flops = 20 * elements};
}

int64_t workspace(const Launch& launch, const device::Properties&) {
  return launch.in[0].dim(0) * log_softmax_chunks(launch.in[0].dim(1)) *
         static_cast<int64_t>(sizeof(LogSoftmaxChunk));
}

double exact(const Launch& launch, int64_t index) {
  const int64_t vocab = launch.in[0].dim(1);
  const float* x = launch.in[0].as<float>() + index / vocab * vocab;
  return x[index % vocab] - log_sum_of_row(x, vocab);
}

}  // namespace

void log_softmax_avx2(const Launch& launch);
void log_softmax_cpu(const Launch& launch);
void log_softmax_cuda(const Launch& launch);
void log_softmax_ref(const Launch& launch);

const Op& op_log_softmax() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "log_softmax_cuda",
                        .device = device::Kind::kCuda,
                        .run = log_softmax_cuda}, )  //
      MILLRACE_ON_X86({.name = "log_softmax_avx2",
                       .why_not = needs_isa<device::CpuIsa::kAvx2>,
                       .workspace = workspace,
                       .run = log_softmax_avx2}, )  //
      {.name = "log_softmax_cpu", .workspace = workspace, .run = log_softmax_cpu},
      {.name = "log_softmax_ref", .run = log_softmax_ref},
  };
  static constexpr Op kOp = {.name = "log_softmax",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<LogSoftmax>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
