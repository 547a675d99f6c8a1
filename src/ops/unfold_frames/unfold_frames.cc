#include "ops/unfold_frames/unfold_frames.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void unfold_frames_ref(const Launch& launch);
void unfold_frames_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<UnfoldFrames>(attrs);
  if (a.stride != 1 && a.stride != 2) {
    throw_bad_input(str("unfold_frames: stride must be 1 or 2, got ", a.stride));
  }
  const ShapeRule in(UnfoldFrames::kName, types,
                     {"x", "query_start", "query_length", "position_ids"}, a.stride == 1 ? 1 : 0);
  in.expect_float(0);
  in.expect_rank(0, 2);
  for (int i = 1; i < in.count(); ++i) {
    in.expect_dtype(i, ir::DType::kI32);
    in.expect_rank(i, 1);
  }
  const ir::Dim rows = a.stride == 2 ? in.dim(3, 0) : in.dim(0, 0);
  return {{in.type(0).dtype, {rows, 3 * in.dim(0, 1).value()}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes())};
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "unfold_frames_cuda",
                      .device = device::Kind::kCuda,
                      .run = unfold_frames_cuda}, )  //
    {.name = "unfold_frames_ref", .run = unfold_frames_ref},
};

}  // namespace

const Op& op_unfold_frames() {
  static constexpr Op kOp = {.name = "unfold_frames",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<UnfoldFrames>,
                             .cost = cost};
  return kOp;
}

}  // namespace millrace::ops
