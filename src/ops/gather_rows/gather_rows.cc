#include "ops/gather_rows/gather_rows.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void gather_rows_ref(const Launch& launch);
void gather_rows_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(GatherRows::kName, types, {"x", "rows"});
  if (in.type(0).dtype != ir::DType::kI32) in.expect_float(0);
  in.expect_min_rank(0, 2);
  in.expect_dtype(1, ir::DType::kI32);
  in.expect_rank(1, 1);
  ir::TensorType out = in.type(0);
  out.shape[0] = in.dim(1, 0);
  return {out};
}

Cost cost(const Launch& launch) {
  return {.bytes = 2.0 * static_cast<double>(launch.out[0].bytes()), .flops = 0};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t width = launch.out[0].count() / launch.out[0].dim(0);
  return exact_element(launch.in[0],
                       launch.in[1].as<int32_t>()[index / width] * width + index % width);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "gather_rows_cuda", .device = device::Kind::kCuda, .run = gather_rows_cuda}, )  //
    {.name = "gather_rows_ref", .run = gather_rows_ref},
};

}  // namespace

const Op& op_gather_rows() {
  static constexpr Op kOp = {.name = "gather_rows",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<GatherRows>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
