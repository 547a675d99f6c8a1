#include "ops/slice_cols/slice_cols.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void slice_cols_ref(const Launch& launch);
void slice_cols_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(SliceCols::kName, types, {"x"});
  in.expect_float(0);
  in.expect_rank(0, 2);
  const auto slice = from_attrs<SliceCols>(attrs);
  const ir::Dim& width = in.dim(0, 1);
  if (slice.begin < 0 || slice.end <= slice.begin ||
      (width.is_static() && slice.end > width.value())) {
    in.fail(0, str("a width that columns ", slice.begin, " to ", slice.end, " lie in"));
  }
  return {{in.type(0).dtype, {in.dim(0, 0), slice.end - slice.begin}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = 2.0 * static_cast<double>(launch.out[0].bytes()), .flops = 0};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t width = launch.out[0].dim(1);
  return exact_element(launch.in[0], index / width * launch.in[0].dim(1) +
                                         launch.attrs<SliceCols>().begin + index % width);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "slice_cols_cuda", .device = device::Kind::kCuda, .run = slice_cols_cuda}, )  //
    {.name = "slice_cols_ref", .run = slice_cols_ref},
};

}  // namespace

const Op& op_slice_cols() {
  static constexpr Op kOp = {.name = "slice_cols",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<SliceCols>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
