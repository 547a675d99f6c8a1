#include "ops/moe_route/moe_route.h"

#include <cmath>

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void moe_route_ref(const Launch& launch);
void moe_route_cuda(const Launch& launch);

namespace {

void check_groups(const MoeRoute& a, int64_t experts) {
  if (experts < 1 || experts > kMaxExperts || a.groups > kMaxExpertGroups) {
    throw_bad_input(str(experts, " experts in ", a.groups, " groups; at most ", kMaxExperts, " in ",
                        kMaxExpertGroups, " are supported"),
                    "moe_route");
  }
  if (a.groups < 1 || experts % a.groups != 0) {
    throw_bad_input(str(experts, " experts cannot form ", a.groups, " equal groups"), "moe_route");
  }
  if (a.kept_groups < 1 || a.kept_groups > a.groups) {
    throw_bad_input(str("kept_groups is ", a.kept_groups, " of ", a.groups), "moe_route");
  }
  const int64_t in_group = experts / a.groups;
  if (a.experts_per_token < 1 || a.experts_per_token > a.kept_groups * in_group) {
    throw_bad_input(str("experts_per_token is ", a.experts_per_token, ", of ",
                        a.kept_groups * in_group, " experts to choose from"),
                    "moe_route");
  }
  if (a.group_score != "max" && (a.group_score != "top2" || in_group < 2)) {
    throw_bad_input(str("group_score \"", a.group_score, "\" with ", in_group, " experts a group"),
                    "moe_route", "use max, or top2 with groups of two or more");
  }
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<MoeRoute>(attrs);
  const ShapeRule in(MoeRoute::kName, types, {"logits", "bias"}, 1);
  if (in.count() != (a.bias ? 2 : 1)) {
    throw_bad_input(str(in.count(), " inputs instead of ", a.bias ? 2 : 1), "moe_route");
  }
  in.expect_dtype(0, ir::DType::kF32);
  in.expect_rank(0, 2);
  if (!in.dim(0, 1).is_static()) in.fail(0, "a fixed number of experts");
  if (a.bias) {
    in.expect_float(1);
    in.expect_shape(1, {in.dim(0, 1)});
  }
  check_groups(a, in.dim(0, 1).value());
  if (a.scores != "softmax" && a.scores != "sigmoid") {
    throw_bad_input(str("unknown scores \"", a.scores, "\""), "moe_route",
                    "use softmax or sigmoid");
  }
  if (!(a.scale > 0) || !std::isfinite(a.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", a.scale), "moe_route");
  }
  const ir::Shape chosen = {in.dim(0, 0), a.experts_per_token};
  return {{ir::DType::kI32, chosen}, {ir::DType::kF32, chosen}};
}

Cost cost(const Launch& launch) {
  constexpr double kFlopsOfAnExponential = 16;
  const auto logits = static_cast<double>(launch.in[0].count());
  return {.bytes = static_cast<double>(launch.in[0].bytes() + 2 * launch.out[0].bytes()),
          .flops = logits * (kFlopsOfAnExponential + launch.attrs<MoeRoute>().experts_per_token)};
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "moe_route_cuda", .device = device::Kind::kCuda, .run = moe_route_cuda}, )  //
    {.name = "moe_route_ref", .run = moe_route_ref},
};

}  // namespace

const Op& op_moe_route() {
  static constexpr Op kOp = {.name = "moe_route",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<MoeRoute>,
                             .cost = cost};
  return kOp;
}

}  // namespace millrace::ops
