#include "ops/gated_activation/gated_activation.h"

#include "base/error.h"
#include "ops/common/activation_kind.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void gated_activation_ref(const Launch& launch);
void gated_activation_cuda(const Launch& launch);
void gated_activation_avx2(const Launch& launch);
void gated_activation_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(GatedActivation::kName, types, {"gate_up"});
  in.expect_float(0);
  in.expect_min_rank(0, 2);
  const auto kind = from_attrs<GatedActivation>(attrs).kind;
  if (!parse_activation(kind))
    throw_bad_input(str("unknown activation \"", kind, "\""), "gated_activation");
  ir::TensorType out = in.type(0);
  ir::Dim& width = out.shape.back();
  if (!width.is_static() || width.value() % 2 != 0) in.fail(0, "an even number of columns");
  width = width.value() / 2;
  return {out};
}

Cost cost(const Launch& launch) {
  constexpr double kFlopsOfAnExponential = 16;
  return {.bytes = 1.5 * static_cast<double>(launch.in[0].bytes()),
          .flops = kFlopsOfAnExponential / 2 * static_cast<double>(launch.in[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t width = launch.in[0].dim(-1) / 2;
  const int64_t gate = index / width * 2 * width + index % width;
  const ActivationKind kind = *parse_activation(launch.attrs<GatedActivation>().kind);
  return apply_activation(kind, exact_element(launch.in[0], gate)) *
         exact_element(launch.in[0], gate + width);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "gated_activation_cuda",
                      .device = device::Kind::kCuda,
                      .run = gated_activation_cuda}, )  //
    MILLRACE_ON_X86({.name = "gated_activation_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = gated_activation_avx512},
                    {.name = "gated_activation_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = gated_activation_avx2}, )  //
    {.name = "gated_activation_ref", .run = gated_activation_ref},
};

}  // namespace

const Op& op_gated_activation() {
  static constexpr Op kOp = {.name = "gated_activation",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<GatedActivation>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
