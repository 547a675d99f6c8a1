#include "ops/add/add.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/elementwise.h"
#include "ops/common/exact.h"
#include "ops/op.h"

namespace millrace::ops {

void add_ref(const Launch& launch);
void add_cuda(const Launch& launch);
void add_avx2(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  return infer_elementwise(Add::kName, types);
}

double exact(const Launch& launch, int64_t index) {
  return exact_element(launch.in[0], index) + exact_element(launch.in[1], index);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA({.name = "add_cuda", .device = device::Kind::kCuda, .run = add_cuda}, )  //
    MILLRACE_ON_X86(
        {.name = "add_avx2", .why_not = needs_isa<device::CpuIsa::kAvx2>, .run = add_avx2}, )  //
    {.name = "add_ref", .run = add_ref},
};

}  // namespace

const Op& op_add() {
  static constexpr Op kOp = {.name = "add",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Add>,
                             .cost = elementwise_cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
