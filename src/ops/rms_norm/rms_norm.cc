#include "ops/rms_norm/rms_norm.h"

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/norm_call.h"
#include "ops/common/norm_exact.h"
#include "ops/common/norm_limits.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void rms_norm_ref(const Launch& launch);
void rms_norm_cuda(const Launch& launch);
void rms_norm_avx2(const Launch& launch);
void rms_norm_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(RmsNorm::kName, types, {"x", "weight"});
  in.expect_float(0);
  in.expect_rank(0, 2);
  check_norm_weights(in, 1, 1);
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  const Tensor& x = launch.in[0];
  return {.bytes = static_cast<double>(2 * x.bytes() + launch.in[1].bytes()),
          .flops = 4.0 * static_cast<double>(x.count())};
}

double exact(const Launch& launch, int64_t index) {
  const Tensor& x = launch.in[0];
  const int64_t width = x.dim(1), column = index % width;
  const auto row = [&](int64_t i) { return exact_element(x, index - column + i); };
  const NormOptions options = launch.attrs<RmsNorm>().options();
  const double normed = exact_rms_norm(row, width, options.eps, column);
  return exact_norm_affine(launch, options, normed, column);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "rms_norm_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = norm_cuda_why_not,
                      .run = rms_norm_cuda}, )  //
    MILLRACE_ON_X86({.name = "rms_norm_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = rms_norm_avx512},
                    {.name = "rms_norm_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = rms_norm_avx2}, )  //
    {.name = "rms_norm_ref", .run = rms_norm_ref},
};

}  // namespace

const Op& op_rms_norm() {
  static constexpr Op kOp = {.name = "rms_norm",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<RmsNorm>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
