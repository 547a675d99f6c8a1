#include "ops/add_layer_norm/add_layer_norm.h"

#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/norm_call.h"
#include "ops/common/norm_limits.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void add_layer_norm_ref(const Launch& launch);
void add_layer_norm_cuda(const Launch& launch);
void add_layer_norm_avx2(const Launch& launch);
void add_layer_norm_avx512(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(AddLayerNorm::kName, types, {"x", "residual", "weight", "bias"}, 2);
  in.expect_float(0);
  in.expect_rank(0, 2);
  in.expect_same_type(1, 0);
  check_norm_weights(in, 2, 1);
  return {in.type(0), in.type(0)};
}

Cost cost(const Launch& launch) {
  const Tensor& x = launch.in[0];
  return {.bytes = static_cast<double>(4 * x.bytes() + norm_weight_bytes(launch, 2)),
          .flops = 9.0 * static_cast<double>(x.count())};
}

double exact(const Launch& launch, int64_t index) {
  return exact_element(launch.in[0], index) + exact_element(launch.in[1], index);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "add_layer_norm_cuda",
                      .device = device::Kind::kCuda,
                      .why_not = norm_cuda_why_not,
                      .run = add_layer_norm_cuda}, )  //
    MILLRACE_ON_X86({.name = "add_layer_norm_avx512",
                     .why_not = needs_isa<device::CpuIsa::kAvx512>,
                     .run = add_layer_norm_avx512},
                    {.name = "add_layer_norm_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = add_layer_norm_avx2}, )  //
    {.name = "add_layer_norm_ref", .run = add_layer_norm_ref},
};

}  // namespace

const Op& op_add_layer_norm() {
  static constexpr Op kOp = {.name = "add_layer_norm",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<AddLayerNorm>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
