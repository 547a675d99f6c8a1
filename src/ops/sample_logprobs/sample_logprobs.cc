#include "ops/sample_logprobs/sample_logprobs.h"

#include <algorithm>

#include "base/error.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"
#include "ops/sample_logprobs/logprobs_io.h"
#include "ops/sample_logprobs/logprobs_work.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const int k = from_attrs<SampleLogprobs>(attrs).k;
  if (k < 1) throw_bad_input(str("k is ", k), std::string(SampleLogprobs::kName), "use 1 or more");
  const ShapeRule in(SampleLogprobs::kName, types, {"logits", "targets", "counts"});
  in.expect_dtype(0, ir::DType::kF32);
  in.expect_rank(0, 2);
  const ir::Dim& rows = in.dim(0, 0);
  for (const int input : {1, 2}) {
    in.expect_dtype(input, ir::DType::kI32);
    in.expect_shape(input, {rows});
  }
  using enum ir::DType;
  return {{kF32, {rows}}, {kI32, {rows, k}}, {kF32, {rows, k}}};
}

Cost cost(const Launch& launch) {
  const auto elements = static_cast<double>(launch.in[0].count());
  return {.bytes = 4 * elements, .flops = 20 * elements};
}

int64_t workspace(const Launch& launch, const device::Properties&) {
  return LogprobsWork(launch).bytes();
}

/// The CUDA tactic gathers each block's best tokens in shared memory.
[[maybe_unused]] std::string why_not_cuda(const Launch& launch, const device::Properties&) {
  const int64_t k = launch.out[1].dim(1);
  return k <= kMaxCudaBest ? "" : str("k is ", k, ", at most ", kMaxCudaBest, " are supported");
}

}  // namespace

void sample_logprobs_avx2(const Launch& launch);
void sample_logprobs_cpu(const Launch& launch);
void sample_logprobs_cuda(const Launch& launch);
void sample_logprobs_ref(const Launch& launch);

const Op& op_sample_logprobs() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "sample_logprobs_cuda",
                        .device = device::Kind::kCuda,
                        .why_not = why_not_cuda,
                        .run = sample_logprobs_cuda}, )  //
      MILLRACE_ON_X86({.name = "sample_logprobs_avx2",
                       .why_not = needs_isa<device::CpuIsa::kAvx2>,
                       .workspace = workspace,
                       .run = sample_logprobs_avx2}, )  //
      {.name = "sample_logprobs_cpu", .workspace = workspace, .run = sample_logprobs_cpu},
      {.name = "sample_logprobs_ref", .run = sample_logprobs_ref},
  };
  static constexpr Op kOp = {.name = "sample_logprobs",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<SampleLogprobs>,
                             .cost = cost};
  return kOp;
}

LogprobsIo::LogprobsIo(const Launch& launch)
    : count(launch.in[0].dim(0)),
      vocab(launch.in[0].dim(1)),
      k(launch.out[1].dim(1)),
      logits(launch.in[0].as<float>()),
      targets(launch.in[1].as<int32_t>()),
      counts(launch.in[2].as<int32_t>()),
      logprobs(launch.out[0].as<float>()),
      top_ids(launch.out[1].as<int32_t>()),
      top_logprobs(launch.out[2].as<float>()) {}

void LogprobsIo::clear(int64_t l, float value) const {
  logprobs[l] = value;
  std::fill_n(top_ids + l * k, k, -1);
  std::fill_n(top_logprobs + l * k, k, value);
}

}  // namespace millrace::ops
