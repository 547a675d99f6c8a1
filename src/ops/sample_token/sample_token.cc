#include "ops/sample_token/sample_token.h"

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"
#include "ops/sample_token/sample_token_io.h"
#include "ops/sample_token/sample_token_work.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(SampleToken::kName, types, {"history", "logits", "adjusted", "rows"});
  in.expect_dtype(0, ir::DType::kI32);
  in.expect_rank(0, 2);
  in.expect_dtype(1, ir::DType::kF32);
  in.expect_rank(1, 2);
  in.expect_same_type(2, 1);
  in.expect_dtype(3, ir::DType::kI32);
  in.expect_shape(3, {in.dim(1, 0), kSamplingRowWords});
  const ir::TensorType per_row{ir::DType::kI32, {in.dim(1, 0)}};
  return {in.type(0), per_row, per_row};
}

/// As for greedy rows: one reading of the logits.
Cost cost(const Launch& launch) {
  const auto bytes = static_cast<double>(launch.in[1].bytes());
  return {.bytes = bytes, .flops = bytes / 4};
}

int64_t workspace_ref(const Launch& launch, const device::Properties&) {
  return launch.in[1].dim(1) * static_cast<int64_t>(3 * sizeof(float));
}

int64_t workspace(const Launch& launch, const device::Properties&) {
  return SampleTokenWork(launch).bytes();
}

}  // namespace

void sample_token_avx2(const Launch& launch);
void sample_token_cpu(const Launch& launch);
void sample_token_cuda(const Launch& launch);
void sample_token_ref(const Launch& launch);

const Op& op_sample_token() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "sample_token_cuda",
                        .device = device::Kind::kCuda,
                        .run = sample_token_cuda}, )  //
      MILLRACE_ON_X86({.name = "sample_token_avx2",
                       .why_not = needs_isa<device::CpuIsa::kAvx2>,
                       .workspace = workspace,
                       .run = sample_token_avx2}, )  //
      {.name = "sample_token_cpu", .workspace = workspace, .run = sample_token_cpu},
      {.name = "sample_token_ref", .workspace = workspace_ref, .run = sample_token_ref},
  };
  static constexpr Op kOp = {.name = "sample_token",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<SampleToken>,
                             .cost = cost,
                             .alias_input = 0};
  return kOp;
}

SampleTokenIo::SampleTokenIo(const Launch& launch)
    : count(launch.in[1].dim(0)),
      vocab(launch.in[1].dim(1)),
      capacity(launch.out[0].dim(1)),
      history(launch.out[0].as<int32_t>()),
      logits(launch.in[1].as<float>()),
      adjusted(launch.in[2].as<float>()),
      rows(launch.in[3].as<int32_t>()),
      tokens(launch.out[1].as<int32_t>()),
      status(launch.out[2].as<int32_t>()) {}

}  // namespace millrace::ops
