#include "ops/layer_norm/layer_norm.h"

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/norm_call.h"
#include "ops/common/norm_exact.h"
#include "ops/common/norm_limits.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void layer_norm_ref(const Launch& launch);
void layer_norm_cuda(const Launch& launch);
void layer_norm_avx2(const Launch& launch);
void layer_norm_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(LayerNorm::kName, types, {"x", "weight", "bias"}, 2);
  in.expect_float(0);
  in.expect_rank(0, 2);
  check_norm_weights(in, 1, from_attrs<LayerNorm>(attrs).groups);
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  const Tensor& x = launch.in[0];
  return {.bytes = static_cast<double>(2 * x.bytes() + norm_weight_bytes(launch, 1)),
          .flops = 8.0 * static_cast<double>(x.count())};
}

double exact(const Launch& launch, int64_t index) {
  const Tensor& x = launch.in[0];
  const NormOptions options = launch.attrs<LayerNorm>().options();
  const int64_t width = x.dim(1) / options.groups, i = index % width;
  const auto row = [&](int64_t k) { return exact_element(x, index - i + k); };
  const double normed = exact_layer_norm(row, width, options.eps, i);
  return exact_norm_affine(launch, options, normed, index % x.dim(1));
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "layer_norm_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = norm_cuda_why_not,
                      .run = layer_norm_cuda}, )  //
    MILLRACE_ON_X86({.name = "layer_norm_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = layer_norm_avx512},
                    {.name = "layer_norm_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = layer_norm_avx2}, )  //
    {.name = "layer_norm_ref", .run = layer_norm_ref},
};

}  // namespace

const Op& op_layer_norm() {
  static constexpr Op kOp = {.name = "layer_norm",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<LayerNorm>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
