#include "ops/sinusoid/sinusoid.h"

#include "base/error.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/float_types.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"
#include "ops/sinusoid/sinusoid_math.h"

namespace millrace::ops {

void sinusoid_ref(const Launch& launch);
void sinusoid_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<Sinusoid>(attrs);
  const ShapeRule in(Sinusoid::kName, types, {"position_ids"});
  in.expect_dtype(0, ir::DType::kI32);
  in.expect_rank(0, 1);
  const auto dtype = ir::parse_dtype(a.dtype);
  if (!dtype || !is_kernel_float(*dtype)) {
    throw_bad_input(str("sinusoid: dtype ", a.dtype, " is not f32, bf16 or f16"));
  }
  if (a.dim < 1) throw_bad_input(str("sinusoid: dim must be positive, got ", a.dim));
  return {{*dtype, {in.dim(0, 0), a.dim}}};
}

Cost cost(const Launch& launch) {
  return {.bytes = static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes()),
          .flops = static_cast<double>(launch.out[0].count())};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t dim = launch.out[0].dim(1);
  return sinusoid_at(launch.in[0].as<int32_t>()[index / dim], index % dim, dim);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "sinusoid_cuda", .device = device::Kind::kCuda, .run = sinusoid_cuda}, )  //
    {.name = "sinusoid_ref", .run = sinusoid_ref},
};

}  // namespace

const Op& op_sinusoid() {
  static constexpr Op kOp = {.name = "sinusoid",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Sinusoid>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
