#include "ops/clamped_swiglu/clamped_swiglu.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void clamped_swiglu_ref(const Launch& launch);
void clamped_swiglu_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(ClampedSwiglu::kName, types, {"gate_up"});
  in.expect_float(0);
  in.expect_min_rank(0, 2);
  const auto a = from_attrs<ClampedSwiglu>(attrs);
  if (!std::isfinite(a.alpha) || !(a.limit > 0)) {
    throw_bad_input(str("alpha is ", a.alpha, ", limit ", a.limit), "clamped_swiglu",
                    "use a number and a positive number");
  }
  ir::TensorType out = in.type(0);
  ir::Dim& width = out.shape.back();
  if (!width.is_static() || width.value() % 2 != 0) in.fail(0, "an even number of columns");
  width = width.value() / 2;
  return {out};
}

Cost cost(const Launch& launch) {
  constexpr double kFlopsOfAnExponential = 16;
  return {.bytes = 1.5 * static_cast<double>(launch.in[0].bytes()),
          .flops = kFlopsOfAnExponential * static_cast<double>(launch.out[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  const auto& a = launch.attrs<ClampedSwiglu>();
  const double gate = std::min(exact_element(launch.in[0], 2 * index), a.limit);
  const double up = std::clamp(exact_element(launch.in[0], 2 * index + 1), -a.limit, a.limit);
  return (up + 1) * gate / (1 + std::exp(-a.alpha * gate));
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "clamped_swiglu_cuda",
                      .device = device::Kind::kCuda,
                      .run = clamped_swiglu_cuda}, )  //
    {.name = "clamped_swiglu_ref", .run = clamped_swiglu_ref},
};

}  // namespace

const Op& op_clamped_swiglu() {
  static constexpr Op kOp = {.name = "clamped_swiglu",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<ClampedSwiglu>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
