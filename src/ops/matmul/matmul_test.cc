#include "ops/matmul/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

using ir::DType;

/// Numbers as an op gets them, and what they are worth.
struct Numbers {
  DType dtype = DType::kF32;
  std::vector<float> values;
  std::vector<char> bytes;

  Numbers(DType type, int64_t count, uint32_t seed) : dtype(type) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> exact(static_cast<size_t>(count));
    for (float& value : exact)
      value = normal(random);
    bytes.resize(static_cast<size_t>(count * ir::dtype_size(type)));
    ir::convert(DType::kF32, exact.data(), type, bytes.data(), count);
    values.resize(exact.size());
    ir::convert(type, bytes.data(), DType::kF32, values.data(), count);
  }
  Tensor tensor(std::vector<int64_t> shape) { return {bytes.data(), dtype, shape}; }
};

struct Problem {
  int64_t rows, cols, depth;  // T, N, K
  DType x = DType::kF32, weight = DType::kF32, bias_type = DType::kF32;
  Matmul attrs = {};
};

/// f in double, from its definition.
double activate(const std::string& name, double v) {
  if (name == "silu") return v / (1 + std::exp(-v));
  if (name == "gelu") return v / 2 * std::erfc(-v / std::sqrt(2.0));
  if (name == "gelu_new") {
    return v / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
  }
  if (name == "relu") return std::max(v, 0.0);
  return v;
}

class Product {
 public:
  explicit Product(const Problem& p)
      : p_(p),
        x_(p.x, p.rows * p.depth, 1),
        weight_(p.weight, p.cols * p.depth, 2),
        bias_(p.bias_type, p.cols, 3),
        residual_(p.x, p.rows * p.cols, 4) {}

  double expected(int64_t t, int64_t n) const {
    double sum = 0;
    for (int64_t k = 0; k < p_.depth; ++k)
      sum += double{x_.values[at(t, k, p_.depth)]} * weight_.values[at(n, k, p_.depth)];
    if (p_.attrs.bias) sum += bias_.values[at(0, n, 0)];
    sum = activate(p_.attrs.activation, sum);
    if (p_.attrs.residual) sum += residual_.values[at(t, n, p_.cols)];
    return sum;
  }

  /// The output of rows [first, first + count), as floats.
  std::vector<float> run(const Tactic& tactic, ThreadPool& pool, int64_t first, int64_t count) {
    const DType out_type = *ir::parse_dtype(p_.attrs.dtype);
    std::vector<char> out(static_cast<size_t>(count * p_.cols * ir::dtype_size(out_type)), 0x7f);
    std::vector<Tensor> in = {row_range(x_, first, count, p_.depth),
                              weight_.tensor({p_.cols, p_.depth})};
    if (p_.attrs.bias) in.push_back(bias_.tensor({p_.cols}));
    if (p_.attrs.residual) in.push_back(row_range(residual_, first, count, p_.cols));
    const std::vector<Tensor> outs = {{out.data(), out_type, std::vector<int64_t>{count, p_.cols}}};
    device::Queue queue{.pool = &pool};
    Launch launch{.in = in, .out = outs, .attributes = &p_.attrs, .queue = &queue};
    tactic.run(launch);
    std::vector<float> values(static_cast<size_t>(count * p_.cols));
    ir::convert(out_type, out.data(), DType::kF32, values.data(), count * p_.cols);
    return values;
  }

 private:
  static size_t at(int64_t row, int64_t col, int64_t cols) {
    return static_cast<size_t>(row * cols + col);
  }
  static Tensor row_range(Numbers& from, int64_t first, int64_t count, int64_t cols) {
    Tensor all = from.tensor({count, cols});
    all.data = from.bytes.data() + first * cols * ir::dtype_size(from.dtype);
    return all;
  }

  const Problem p_;
  Numbers x_, weight_, bias_, residual_;
};

/// The specification rounds an exact sum once; then f and the output type round.
TEST(MatmulRef, IsTheFormulaInDouble) {
  ThreadPool pool(2);
  const Tactic& reference = find_op("matmul")->tactics.back();
  for (const DType x : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (const char* activation : {"none", "silu", "gelu", "gelu_new", "relu"}) {
        Problem p{.rows = 3, .cols = 37, .depth = 53, .x = x, .weight = weight};
        p.attrs = {.bias = true, .residual = true, .activation = activation};
        Product product(p);
        const std::vector<float> got = product.run(reference, pool, 0, p.rows);
        for (int64_t i = 0; i < p.rows * p.cols; ++i) {
          const double want = product.expected(i / p.cols, i % p.cols);
          EXPECT_NEAR(got[static_cast<size_t>(i)], want, 2e-6 * (1 + std::abs(want)))
              << activation << " at " << i;
        }
      }
    }
  }
}

TEST(MatmulRef, RoundsToTheOutputTypeOnce) {
  ThreadPool pool(1);
  const Tactic& reference = find_op("matmul")->tactics.back();
  for (const DType out : {DType::kBF16, DType::kF16}) {
    Problem p{.rows = 2, .cols = 9, .depth = 40};
    p.attrs.dtype = ir::dtype_name(out);
    Product product(p);
    const std::vector<float> got = product.run(reference, pool, 0, p.rows);
    const double unit = out == DType::kBF16 ? 0x1p-8 : 0x1p-11;
    for (int64_t i = 0; i < p.rows * p.cols; ++i) {
      const double want = product.expected(i / p.cols, i % p.cols);
      EXPECT_NEAR(got[static_cast<size_t>(i)], want, unit * std::abs(want) + 1e-6) << i;
    }
  }
}

std::string refusal(std::vector<ir::TensorType> in, const Matmul& attrs) {
  try {
    find_op("matmul")->infer(in, to_attrs(attrs));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(MatmulShape, FollowsTheInputs) {
  const ir::TensorType x{DType::kF32, {"T", 8}};
  const ir::TensorType weight{DType::kBF16, {6, 8}};
  const ir::TensorType bias{DType::kBF16, {6}};
  const ir::TensorType residual{DType::kF32, {"T", 6}};
  const Matmul all{.bias = true, .residual = true, .activation = "silu", .dtype = "bf16"};
  const auto out = find_op("matmul")->infer(std::vector{x, weight, bias, residual}, to_attrs(all));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(ir::to_string(out[0]), "bf16[T, 6]");
}

TEST(MatmulShape, RefusesWhatDoesNotFit) {
  const ir::TensorType x{DType::kF32, {"T", 8}};
  const ir::TensorType weight{DType::kF32, {6, 8}};
  EXPECT_EQ(refusal({x, weight}, {}), "");
  EXPECT_NE(refusal({x}, {}).find("1 inputs instead of 2"), std::string::npos);
  EXPECT_NE(refusal({x, {DType::kF32, {6, 9}}}, {}).find("x is [T, 8] instead of [T, 9]"),
            std::string::npos);
  EXPECT_NE(refusal({x, {DType::kI32, {6, 8}}}, {}).find("the weight is i32"), std::string::npos);
  EXPECT_NE(refusal({{DType::kF32, {8}}, weight}, {}).find("x is [8], not a matrix"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight, {DType::kF32, {7}}}, {.bias = true}).find("the bias is [7]"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight, {DType::kBF16, {"T", 6}}}, {.residual = true})
                .find("the residual is bf16, x is f32"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight}, {.activation = "tan"}).find("unknown activation tan"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight}, {.dtype = "i32"}).find("output type i32"), std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
