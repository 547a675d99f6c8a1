#include "ops/beam_step/beam_step.h"

#include "base/error.h"
#include "ops/beam_step/beam_step_work.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const int k = from_attrs<BeamStep>(attrs).beams;
  if (k < 2 || k > kMaxBeams) {
    throw_bad_input(str("beams is ", k), std::string(BeamStep::kName), str("use 2 to ", kMaxBeams));
  }
  const ShapeRule in(BeamStep::kName, types,
                     {"scores", "log_probs", "adjusted", "rows", "beams", "lists"});
  in.expect_dtype(0, ir::DType::kF32);
  in.expect_rank(0, 1);
  in.expect_dtype(1, ir::DType::kF32);
  in.expect_rank(1, 2);
  in.expect_same_type(2, 1);
  for (const int input : {3, 4, 5})
    in.expect_dtype(input, ir::DType::kI32);
  in.expect_shape(3, {in.dim(1, 0), kSamplingRowWords});
  in.expect_shape(4, {in.dim(4, 0), kBeamRowWords});
  in.expect_rank(5, 1);
  const ir::Dim& requests = in.dim(4, 0);
  using enum ir::DType;
  return {in.type(0),
          {kF32, {requests, 2 * k}},
          {kI32, {requests, 2 * k}},
          {kI32, {requests, 2 * k}},
          {kI32, {requests}}};
}

/// One reading of the rows.
Cost cost(const Launch& launch) {
  const auto bytes = static_cast<double>(launch.in[1].bytes());
  return {.bytes = bytes, .flops = bytes / 4};
}

int64_t workspace(const Launch& launch, const device::Properties&) {
  return BeamStepWork(launch).bytes();
}

}  // namespace

void beam_step_avx2(const Launch& launch);
void beam_step_cpu(const Launch& launch);
void beam_step_cuda(const Launch& launch);
void beam_step_ref(const Launch& launch);

const Op& op_beam_step() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "beam_step_cuda",
                        .device = device::Kind::kCuda,
                        .workspace = workspace,
                        .run = beam_step_cuda}, )  //
      MILLRACE_ON_X86({.name = "beam_step_avx2",
                       .why_not = needs_isa<device::CpuIsa::kAvx2>,
                       .workspace = workspace,
                       .run = beam_step_avx2}, )  //
      {.name = "beam_step_cpu", .workspace = workspace, .run = beam_step_cpu},
      {.name = "beam_step_ref", .run = beam_step_ref},
  };
  static constexpr Op kOp = {.name = "beam_step",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<BeamStep>,
                             .cost = cost,
                             .alias_input = 0};
  return kOp;
}

}  // namespace millrace::ops
