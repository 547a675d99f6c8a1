#include "ops/beam_reorder/beam_reorder.h"

#include "base/error.h"
#include "ops/beam_reorder/beam_reorder_io.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"

namespace millrace::ops {
namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const int k = from_attrs<BeamReorder>(attrs).beams;
  if (k < 2 || k > kMaxBeams) {
    throw_bad_input(str("beams is ", k), std::string(BeamReorder::kName),
                    str("use 2 to ", kMaxBeams));
  }
  const ShapeRule in(BeamReorder::kName, types, {"tables", "beams", "parents", "tokens"});
  for (int input = 0; input < 4; ++input)
    in.expect_dtype(input, ir::DType::kI32);
  in.expect_rank(0, 3);
  in.expect_shape(0, {2, in.dim(0, 1), in.dim(0, 2)});
  in.expect_rank(1, 2);
  const ir::Dim& requests = in.dim(1, 0);
  in.expect_shape(1, {requests, kBeamRowWords});
  in.expect_shape(2, {requests, 2 * k});
  in.expect_shape(3, {requests, 2 * k});
  return {in.type(0)};
}

/// As if the tables were full.
Cost cost(const Launch& launch) {
  const auto per_beam = static_cast<double>(launch.in[0].dim(2)) * 2 * sizeof(int32_t);
  const auto beams = static_cast<double>(launch.in[1].dim(0) * launch.attrs<BeamReorder>().beams);
  return {.bytes = 2 * beams * per_beam, .flops = 0};
}

}  // namespace

void beam_reorder_cuda(const Launch& launch);
void beam_reorder_ref(const Launch& launch);

const Op& op_beam_reorder() {
  static constexpr Tactic kTactics[] = {
      MILLRACE_ON_CUDA({.name = "beam_reorder_cuda",
                        .device = device::Kind::kCuda,
                        .run = beam_reorder_cuda}, )  //
      {.name = "beam_reorder_ref", .run = beam_reorder_ref},
  };
  static constexpr Op kOp = {.name = "beam_reorder",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<BeamReorder>,
                             .cost = cost,
                             .alias_input = 0};
  return kOp;
}

}  // namespace millrace::ops
