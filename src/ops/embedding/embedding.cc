#include "ops/embedding/embedding.h"

#include "base/error.h"
#include "ops/common/cpu_tactic.h"
#include "ops/common/cuda_tactic.h"
#include "ops/common/exact.h"
#include "ops/common/float_types.h"
#include "ops/common/shape_rule.h"
#include "ops/op.h"

namespace millrace::ops {

void embedding_ref(const Launch& launch);
void embedding_cuda(const Launch& launch);
void embedding_avx2(const Launch& launch);

namespace {

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const ShapeRule in(Embedding::kName, types, {"ids", "table", "prompts"}, 1);
  in.expect_dtype(0, ir::DType::kI32);
  in.expect_rank(0, 1);
  in.expect_float(1);
  in.expect_rank(1, 2);
  if (in.count() == 3) {
    in.expect_dtype(2, ir::DType::kF32);
    in.expect_rank(2, 3);
    in.expect_shape(2, {in.dim(2, 0), in.dim(2, 1), in.dim(1, 1)});
  }
  const auto options = from_attrs<Embedding>(attrs);
  const auto dtype = ir::parse_dtype(options.dtype);
  if (!dtype || !is_kernel_float(*dtype)) {
    throw_bad_input(str("no output type: \"", options.dtype, "\""), "embedding");
  }
  return {{*dtype, {in.dim(0, 0), in.dim(1, 1)}}};
}

Cost cost(const Launch& launch) {
  const Tensor& out = launch.out[0];
  const int64_t row_bytes = launch.in[1].dim(1) * ir::dtype_size(launch.in[1].dtype);
  return {.bytes = static_cast<double>(out.bytes() + out.dim(0) * row_bytes), .flops = 0};
}

double exact(const Launch& launch, int64_t index) {
  const int64_t width = launch.out[0].dim(1);
  const int64_t id = launch.in[0].as<int32_t>()[index / width];
  const bool is_virtual = launch.in.size() == 3 && id >= launch.in[1].dim(0);
  if (is_virtual) {
    return exact_element(launch.in[2], (id - launch.in[1].dim(0)) * width + index % width);
  }
  return exact_element(launch.in[1],
                       (id + launch.attrs<Embedding>().offset) * width + index % width);
}

constexpr Tactic kTactics[] = {
    MILLRACE_ON_CUDA(
        {.name = "embedding_cuda", .device = device::Kind::kCuda, .run = embedding_cuda}, )  //
    MILLRACE_ON_X86({.name = "embedding_avx2",
                     .why_not = needs_isa<device::CpuIsa::kAvx2>,
                     .run = embedding_avx2}, )  //
    {.name = "embedding_ref", .run = embedding_ref},
};

}  // namespace

const Op& op_embedding() {
  static constexpr Op kOp = {.name = "embedding",
                             .tactics = kTactics,
                             .infer = infer,
                             .parse_attrs = parse_attrs<Embedding>,
                             .cost = cost,
                             .exact = exact};
  return kOp;
}

}  // namespace millrace::ops
