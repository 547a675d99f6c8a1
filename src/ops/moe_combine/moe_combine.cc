#include "ops/moe_combine/moe_combine.h"

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void moe_combine_ref(const Launch& launch);
void moe_combine_cuda(const Launch& launch);
void moe_combine_avx2(const Launch& launch);
void moe_combine_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(MoeCombine::kName, types, {"y", "weights"});
  in.expect_float(0);
  in.expect_dtype(1, ir::DType::kF32);
  in.expect_rank(1, 2);
  const bool flat = in.type(0).shape.size() == 2 && in.dim(1, 1) == ir::Dim(1);
  if (!flat) in.expect_shape(0, {in.dim(1, 0), in.dim(1, 1), in.dim(0, -1)});
  if (flat) in.expect_shape(0, {in.dim(1, 0), in.dim(0, -1)});
  return {{in.type(0).dtype, {in.dim(0, 0), in.dim(0, -1)}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes()),
          .flops = 2 * static_cast<double>(launch.in[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t width = launch.out[0].dim(1), experts = launch.in[1].dim(1);
  const int64_t row = index / width, column = index % width;
  double sum = 0;
  for (int64_t j = row * experts; j < (row + 1) * experts; ++j)
    sum += exact_element(launch.in[1], j) * exact_element(launch.in[0], j * width + column);
  return sum;
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "moe_combine_cuda", .device = device::Kind::kCuda, .run = moe_combine_cuda}, )  //
    MILLRACE_ON_X86({.name = "moe_combine_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = moe_combine_avx512},
                    {.name = "moe_combine_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = moe_combine_avx2}, )  //
    {.name = "moe_combine_ref", .run = moe_combine_ref},
};

}  // namespace

const Op& op_moe_combine() {
  static constexpr Op kOp = {.name = "moe_combine",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<MoeCombine>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
