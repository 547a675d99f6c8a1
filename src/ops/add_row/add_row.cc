#include "ops/add_row/add_row.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void add_row_ref(const Launch& launch);
void add_row_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(AddRow::kName, types, {"x", "row"});
  in.expect_float(0);
  in.expect_rank(0, 2);
  in.expect_float(1);
  in.expect_shape(1, {1, in.dim(0, 1)});
  return {types[0]};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.in[1].bytes() +
                                       launch.out[0].bytes()),
          .flops = static_cast<double>(launch.out[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  return exact_element(launch.in[0], index) +
         exact_element(launch.in[1], index % launch.in[1].dim(1));
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "add_row_cuda", .device = device::Kind::kCuda, .run = add_row_cuda}, )  //
    {.name = "add_row_ref", .run = add_row_ref},
};

}  // namespace

const Op& op_add_row() {
  static constexpr Op kOp = {.name = "add_row",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<AddRow>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
