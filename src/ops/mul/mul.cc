#include "ops/mul/mul.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/elementwise.h"
#include "ops/common/exact.h"
#include "ops/op.h"

namespace millrace::ops {

void mul_ref(const Launch& launch);
void mul_cuda(const Launch& launch);
void mul_avx2(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  return infer_elementwise(Mul::kName, types);
}

double exact(const Launch& launch, int64_t index) {
  return exact_element(launch.in[0], index) * exact_element(launch.in[1], index);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "mul_cuda", .device = device::Kind::kCuda, .run = mul_cuda}, )  //
    MILLRACE_ON_X86(
        {.name = "mul_avx2", .why_not = needs_isa<device::CpuIsa::kAvx2>, .run = mul_avx2}, )  //
    {.name = "mul_ref", .run = mul_ref},
};

}  // namespace

const Op& op_mul() {
  static constexpr Op kOp = {.name = "mul",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Mul>,
                             .cost = elementwise_cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
