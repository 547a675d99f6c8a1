#include "ops/moe_matmul/moe_matmul.h"

#include <algorithm>

#include "base/error.h"
#include "ops/common/float_types.h"
#include "ops/common/shape_rule.h"
#include "ops/moe_matmul/moe_matmul_tactics.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

/// N: rows of the weight of one expert. [E*N, K] or [E, N, K].
int64_t expert_cols(const ShapeRule& in, int weight, int64_t experts) {
  in.expect_float(weight);
  in.expect_min_rank(weight, 2);
  for (const ir::Dim& dim : in.type(weight).shape) {
    if (!dim.is_static()) in.fail(weight, "a weight of fixed size");
  }
  const int64_t first = in.dim(weight, 0).value();
  if (in.type(weight).shape.size() == 3 && first == experts) return in.dim(weight, 1).value();
  if (in.type(weight).shape.size() != 2 || experts < 1 || first % experts != 0) {
    in.fail(weight, str("the stacked weights of ", experts, " experts"));
  }
  return first / experts;
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> types, const ir::Attrs& attrs) {
  const auto a = from_attrs<MoeMatmul>(attrs);
  const ShapeRule in(MoeMatmul::kName, types, {"x", "ids", "the weight", "the bias"}, 1);
  if (in.count() != (a.bias ? 4 : 3)) {
    throw_bad_input(str(in.count(), " inputs instead of ", a.bias ? 4 : 3), "moe_matmul");
  }
  in.expect_float(0);
  in.expect_dtype(1, ir::DType::kI32);
  in.expect_rank(1, 2);
  if (!in.dim(1, 1).is_static()) in.fail(1, "a fixed number of experts a token");
  const int64_t cols = expert_cols(in, 2, a.experts);
  ir::Shape x = {in.dim(1, 0), in.dim(2, -1)};
  if (in.type(0).shape.size() == 3) x.insert(x.begin() + 1, in.dim(1, 1));
  in.expect_shape(0, x);
  if (a.bias) {
    in.expect_float(3);
    if (in.type(3).shape.size() == 2) {
      in.expect_shape(3, {a.experts, cols});
    } else {
      in.expect_shape(3, {a.experts * cols});
    }
  }
  const auto out = ir::parse_dtype(a.dtype);
  if (!out || !is_kernel_float(*out)) {
    throw_bad_input(str("output type ", a.dtype), "moe_matmul", "use f32, bf16 or f16");
  }
  return {{*out, {in.dim(1, 0), in.dim(1, 1), cols}}};
}

/// As if the rows went to as many different experts as they can.
Cost cost(const Launch& launch) {
  const MoeMatmulJob job = moe_matmul_job(launch);
  const double used = static_cast<double>(std::min(job.slots, job.experts));
  const double products = static_cast<double>(job.slots * job.cols * job.depth);
  const auto weight_bytes =
      static_cast<double>(job.cols * job.depth * ir::dtype_size(job.weight_type));
  return {.bytes = used * weight_bytes +
                   static_cast<double>(launch.in[0].bytes() + launch.out[0].bytes()),
          .flops = 2 * products};
}

}  // namespace

MoeMatmulJob moe_matmul_job(const Launch& launch) {
  const auto& a = launch.attrs<MoeMatmul>();
  const Tensor& x = launch.in[0];
  const Tensor& weight = launch.in[2];
  MoeMatmulJob job;
  job.x = x.data;
  job.ids = launch.in[1].as<int32_t>();
  job.weight = weight.data;
  if (a.bias) job.bias = launch.in[3].data;
  if (a.bias) job.bias_type = launch.in[3].dtype;
  job.out = launch.out[0].data;
  job.slots = launch.in[1].count();
  job.slots_per_x = x.rank == 2 ? launch.in[1].dim(1) : 1;
  job.experts = a.experts;
  job.cols = launch.out[0].dim(-1);
  job.depth = weight.dim(-1);
  job.x_type = x.dtype;
  job.weight_type = weight.dtype;
  job.out_type = launch.out[0].dtype;
  return job;
}

const Op& op_moe_matmul() {
  static const Op op = {.name = "moe_matmul",
                        .tactics = moe_matmul_tactics(),
                        .infer = infer,
                        .parse_attrs = parse_attrs<MoeMatmul>,
                        .cost = cost,
                        .exact = moe_matmul_exact};
  return op;
}

}  // namespace millrace::ops
