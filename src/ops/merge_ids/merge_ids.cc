#include "ops/merge_ids/merge_ids.h"

#include "ops/common/cuda_tactic.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void merge_ids_ref(const Launch& launch);
void merge_ids_cuda(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs&) {
  const ShapeRule in(MergeIds::kName, types, {"ids", "last_ids"});
  in.expect_dtype(0, ir::DType::kI32);
  in.expect_rank(0, 1);
  in.expect_dtype(1, ir::DType::kI32);
  return {in.type(0)};
}

Cost cost(const Launch& launch) {
  return {.bytes = 3.0 * static_cast<double>(launch.out[0].bytes()), .flops = 0};
}

double exact(const Launch& launch, int64_t index) {
  const int32_t id = launch.in[0].as<int32_t>()[index];
  return id < 0 ? launch.in[1].as<int32_t>()[-1 - id] : id;
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "merge_ids_cuda", .device = device::Kind::kCuda, .run = merge_ids_cuda}, )  //
    {.name = "merge_ids_ref", .run = merge_ids_ref},
};

}  // namespace

const Op& op_merge_ids() {
  static constexpr Op kOp = {.name = "merge_ids",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<MergeIds>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
