#include "ops/activation/activation.h"

#include "base/error.h"
#include "ops/common/activation_kind.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void activation_ref(const Launch& launch);
void activation_cuda(const Launch& launch);
void activation_avx2(const Launch& launch);
void activation_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(Activation::kName, types, {"x"});
  in.expect_float(0);
  const auto kind = from_attrs<Activation>(attrs).kind;
  if (!parse_activation(kind))
    throw_bad_input(str("unknown activation \"", kind, "\""), "activation");
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  constexpr double kFlopsOfAnExponential = 16;
  return {.bytes = 2.0 * static_cast<double>(launch.in[0].bytes()),
          .flops = kFlopsOfAnExponential * static_cast<double>(launch.in[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  return apply_activation(*parse_activation(launch.attrs<Activation>().kind),
                          exact_element(launch.in[0], index));
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "activation_cuda", .device = device::Kind::kCuda, .run = activation_cuda}, )  //
    MILLRACE_ON_X86({.name = "activation_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = activation_avx512},
                    {.name = "activation_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = activation_avx2}, )  //
    {.name = "activation_ref", .run = activation_ref},
};

}  // namespace

const Op& op_activation() {
  static constexpr Op kOp = {.name = "activation",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Activation>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
