#include "ops/sample_prompt/sample_prompt.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(SamplePrompt::kName, types, {"history", "ids", "segments"});
  for (const int input : {0, 1, 2})
    in.expect_dtype(input, ir::DType::kI32);
  in.expect_rank(0, 2);
  in.expect_rank(1, 1);
  in.expect_shape(2, {in.dim(2, 0), 4});
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  return {.bytes = 2.0 * static_cast<double>(launch.in[1].bytes()), .flops = 0};
}

}  // namespace

void sample_prompt_cuda(const Launch& launch);
void sample_prompt_ref(const Launch& launch);

const Op& op_sample_prompt() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "sample_prompt_cuda",
                        .device = device::Kind::kCuda,
                        .run = sample_prompt_cuda}, )  //
      {.name = "sample_prompt_ref", .run = sample_prompt_ref},
  };
  static constexpr Op kOp = {.name = "sample_prompt",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<SamplePrompt>,
                             .cost = cost,
                             .alias_input = 0};
  return kOp;
}

}  // namespace millrace::ops
