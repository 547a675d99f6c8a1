#include "ops/rescale/rescale.h"

#include <cmath>

#include "base/error.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"
#include "ops/rescale/rescale_math.h"

namespace millrace::ops {

void rescale_ref(const Launch& launch);
void rescale_cuda(const Launch& launch);
void rescale_avx2(const Launch& launch);
void rescale_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(Rescale::kName, types, {"x"});
  in.expect_float(0);
  const auto a = from_attrs<Rescale>(attrs);
  if (!std::isfinite(a.factor))
    throw_bad_input(str("factor must be a finite number, got ", a.factor), "rescale");
  if (!(a.softcap >= 0) || !std::isfinite(a.softcap))
    throw_bad_input(str("softcap must be 0 or a positive number, got ", a.softcap), "rescale");
  if (!(a.low <= a.high))
    throw_bad_input(str("low is ", a.low, ", which is above high, ", a.high), "rescale");
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  constexpr double kFlopsOfAnExponential = 16;
  const double flops = launch.attrs<Rescale>().softcap > 0 ? kFlopsOfAnExponential : 1;
  return {.bytes = 2.0 * static_cast<double>(launch.in[0].bytes()),
          .flops = flops * static_cast<double>(launch.in[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  return RescaleSteps<double>(launch.attrs<Rescale>())(exact_element(launch.in[0], index));
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "rescale_cuda", .device = device::Kind::kCuda, .run = rescale_cuda}, )  //
    MILLRACE_ON_X86({.name = "rescale_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = rescale_avx512},
                    {.name = "rescale_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = rescale_avx2}, )  //
    {.name = "rescale_ref", .run = rescale_ref},
};

}  // namespace

const Op& op_rescale() {
  static constexpr Op kOp = {.name = "rescale",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Rescale>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
