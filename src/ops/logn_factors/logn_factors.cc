#include "ops/logn_factors/logn_factors.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/logn_factors/logn_factors_math.h"
#include "ops/op.h"

namespace millrace::ops {

void logn_factors_ref(const Launch& launch);
void logn_factors_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<LognFactors>(attrs);
  const ShapeRule in(LognFactors::kName, types, {"position_ids"});
  in.expect_dtype(0, ir::DType::kI32);
  in.expect_rank(0, 1);
  if (a.length < 2) {
    throw_bad_input(str("logn_factors: length must be at least 2, got ", a.length));
  }
  return {{ir::DType::kF32, {in.dim(0, 0), 1}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes()),
          .flops = static_cast<double>(launch.out[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  return logn_factor_at(launch.in[0].as<int32_t>()[index], launch.attrs<LognFactors>().length);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "logn_factors_cuda",
                      .device = device::Kind::kCuda,
                      .run = logn_factors_cuda}, )  //
    {.name = "logn_factors_ref", .run = logn_factors_ref},
};

}  // namespace

const Op& op_logn_factors() {
  static constexpr Op kOp = {.name = "logn_factors",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<LognFactors>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
