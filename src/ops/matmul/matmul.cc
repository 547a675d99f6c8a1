#include "ops/matmul/matmul.h"

#include "base/error.h"
#include "ops/matmul/matmul_cpu.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

bool is_activation_type(ir::DType type) {
  return type == ir::DType::kF32 || type == ir::DType::kBF16 || type == ir::DType::kF16;
}

void check_input(const char* name, const ir::TensorType& type, const ir::Shape& shape) {
  if (!is_activation_type(type.dtype)) {
    throw_bad_input(str(name, " is ", ir::dtype_name(type.dtype)), "matmul",
                    "use f32, bf16 or f16");
  }
  if (type.shape != shape) {
    throw_bad_input(
        str(name, " is ", ir::to_string(type.shape), " instead of ", ir::to_string(shape)),
        "matmul");
  }
}

/// Columns of the output. The weight is a matrix.
ir::Dim out_cols(const Matmul& a, const ir::Dim& weight_rows) {
  if (!a.gated) return weight_rows;
  if (a.residual) throw_bad_input("a gated product has no residual", "matmul");
  if (!weight_rows.is_static() || weight_rows.value() % 2 != 0) {
    throw_bad_input(str("the weight of a gated product has ", ir::to_string(ir::Shape{weight_rows}),
                        " rows, not two halves"),
                    "matmul", "stack the gate's rows and the same number of up's");
  }
  return weight_rows.value() / 2;
}

std::vector<ir::TensorType> infer(std::span<const ir::TensorType> in, const ir::Attrs& attrs) {
  const auto a = from_attrs<Matmul>(attrs);
  const size_t expected = 2 + (a.bias ? 1 : 0) + (a.residual ? 1 : 0) + (a.normed() ? 1 : 0);
  if (in.size() != expected) {
    throw_bad_input(str(in.size(), " inputs instead of ", expected), "matmul");
  }
  const ir::TensorType& x = in[0];
  const ir::TensorType& weight = in[1];
  for (const auto& [name, type] : {std::pair{"x", &x}, std::pair{"the weight", &weight}}) {
    if (type->shape.size() != 2) {
      throw_bad_input(str(name, " is ", ir::to_string(type->shape), ", not a matrix"), "matmul");
    }
  }
  const ir::Dim rows = x.shape[0];
  const ir::Dim cols = out_cols(a, weight.shape[0]);
  check_input("x", x, {rows, weight.shape[1]});
  check_input("the weight", weight, weight.shape);
  if (a.bias) check_input("the bias", in[2], {weight.shape[0]});
  if (a.residual) {
    const ir::TensorType& residual = in[a.bias ? 3 : 2];
    check_input("the residual", residual, {rows, cols});
    if (residual.dtype != x.dtype) {
      throw_bad_input(str("the residual is ", ir::dtype_name(residual.dtype), ", x is ",
                          ir::dtype_name(x.dtype)),
                      "matmul");
    }
  }
  if (a.normed()) {
    if (a.norm != "rms") throw_bad_input(str("unknown norm ", a.norm), "matmul", "use rms");
    check_input("the norm weight", in.back(), {weight.shape[1]});
  }
  if (!parse_activation(a.activation)) {
    throw_bad_input(str("unknown activation ", a.activation), "matmul");
  }
  const auto out = ir::parse_dtype(a.dtype);
  if (!out || !is_activation_type(*out)) {
    throw_bad_input(str("output type ", a.dtype), "matmul", "use f32, bf16 or f16");
  }
  return {{*out, {rows, cols}}};
}

Cost cost(const Launch& launch) {
  Cost total;
  for (const Tensor& in : launch.in)
    total.bytes += static_cast<double>(in.bytes());
  total.bytes += static_cast<double>(launch.out[0].bytes());
  const double products = static_cast<double>(launch.in[0].dim(0) * launch.in[1].count());
  total.flops = 2 * products;
  return total;
}

}  // namespace

const Op& op_matmul() {
  static const Op op = {
      .name = "matmul",
      .tactics = matmul_tactics(),
      .infer = infer,
      .parse_attrs = parse_attrs<Matmul>,
      .cost = cost,
      .exact = matmul_exact,
  };
  return op;
}

}  // namespace millrace::ops
