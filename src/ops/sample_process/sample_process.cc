#include "ops/sample_process/sample_process.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"
#include "ops/sample_process/process_row.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(SampleProcess::kName, types,
                     {"logits", "rows", "lists", "history", "adjusted"});
  in.expect_dtype(0, ir::DType::kF32);
  in.expect_rank(0, 2);
  for (const int input : {1, 2, 3})
    in.expect_dtype(input, ir::DType::kI32);
  in.expect_shape(1, {in.dim(0, 0), kSamplingRowWords});
  in.expect_rank(2, 1);
  in.expect_rank(3, 2);
  in.expect_same_type(4, 0);
  return {in.type(0)};
}

/// As if every row were adjusted.
Cost cost(const Launch& launch) {
  return {.bytes = 2.0 * static_cast<double>(launch.in[0].bytes()), .flops = 0};
}

int64_t workspace(const Launch& launch, const device::Properties&) {
  return process_tasks(launch) * launch.in[0].dim(1) * static_cast<int64_t>(sizeof(int32_t));
}

}  // namespace

void sample_process_cpu(const Launch& launch);
void sample_process_cuda(const Launch& launch);
void sample_process_ref(const Launch& launch);

const Op& op_sample_process() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "sample_process_cuda",
                        .device = device::Kind::kCuda,
                        .run = sample_process_cuda}, )  //
      {.name = "sample_process_cpu", .workspace = workspace, .run = sample_process_cpu},
      {.name = "sample_process_ref", .run = sample_process_ref},
  };
  static constexpr Op kOp = {.name = "sample_process",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<SampleProcess>,
                             .cost = cost,
                             .alias_input = 4};
  return kOp;
}

}  // namespace millrace::ops
