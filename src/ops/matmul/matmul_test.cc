#include "ops/matmul/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
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

device::Device& cpu() {
  static const auto device = device::make_cpu_device(2);
  return *device;
}

struct Problem {
  int64_t rows, cols, depth;  // T, N, K
  DType x = DType::kF32, weight = DType::kF32, bias_type = DType::kF32, norm_type = DType::kF32;
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
        residual_(p.x, p.rows * p.cols, 4),
        norm_weight_(p.norm_type, p.depth, 5),
        multiplied_(x_.values.begin(), x_.values.end()) {
    if (p.attrs.normed()) norm();
  }

  double linear(int64_t t, int64_t n) const {
    double sum = 0;
    for (int64_t k = 0; k < p_.depth; ++k)
      sum += multiplied_[at(t, k, p_.depth)] * weight_.values[at(n, k, p_.depth)];
    return p_.attrs.bias ? sum + bias_.values[at(0, n, 0)] : sum;
  }
  double expected(int64_t t, int64_t n) const {
    const double value = activate(p_.attrs.activation, linear(t, n));
    return p_.attrs.residual ? value + residual_.values[at(t, n, p_.cols)] : value;
  }
  /// Of the product with the gate in the first half of the weight's rows.
  double expected_gated(int64_t t, int64_t n) const {
    return activate(p_.attrs.activation, linear(t, n)) * linear(t, p_.cols / 2 + n);
  }

  /// The output of rows [first, first + count), as floats.
  std::vector<float> run(const Tactic& tactic, ThreadPool& pool, int64_t first, int64_t count) {
    const DType out_type = *ir::parse_dtype(p_.attrs.dtype);
    const int64_t elements = count * out_cols();
    std::vector<char> out(static_cast<size_t>(elements * ir::dtype_size(out_type)), 0x7f);
    device::Queue queue{.pool = &pool};
    const std::vector<Tensor> in = inputs(first, count);
    const std::vector<Tensor> outs = {{out.data(), out_type, std::vector{count, out_cols()}}};
    Launch launch{.in = in, .out = outs, .attributes = &p_.attrs, .queue = &queue};
    std::unique_ptr<device::Memory> workspace;
    if (tactic.workspace != nullptr) {
      workspace = cpu().allocate(tactic.workspace(launch, cpu().properties()), "workspace");
      launch.workspace = workspace->data();
    }
    tactic.run(launch);
    std::vector<float> values(static_cast<size_t>(elements));
    ir::convert(out_type, out.data(), DType::kF32, values.data(), elements);
    return values;
  }

  /// Op::exact of output `index`.
  double exact(int64_t index) {
    const std::vector<Tensor> in = inputs(0, p_.rows);
    const std::vector<Tensor> out = {{nullptr, DType::kF32, std::vector{p_.rows, out_cols()}}};
    const Launch launch{.in = in, .out = out, .attributes = &p_.attrs};
    return find_op("matmul")->exact(launch, index);
  }

 private:
  static size_t at(int64_t row, int64_t col, int64_t cols) {
    return static_cast<size_t>(row * cols + col);
  }
  int64_t out_cols() const { return p_.attrs.gated ? p_.cols / 2 : p_.cols; }
  std::vector<Tensor> inputs(int64_t first, int64_t count) {
    std::vector<Tensor> in = {row_range(x_, first, count, p_.depth),
                              weight_.tensor({p_.cols, p_.depth})};
    if (p_.attrs.bias) in.push_back(bias_.tensor({p_.cols}));
    if (p_.attrs.residual) in.push_back(row_range(residual_, first, count, p_.cols));
    if (p_.attrs.normed()) in.push_back(norm_weight_.tensor({p_.depth}));
    return in;
  }
  void norm() {
    for (int64_t t = 0; t < p_.rows; ++t) {
      double squares = 0;
      for (int64_t k = 0; k < p_.depth; ++k)
        squares += multiplied_[at(t, k, p_.depth)] * multiplied_[at(t, k, p_.depth)];
      const double root = std::sqrt(squares / static_cast<double>(p_.depth) + p_.attrs.norm_eps);
      for (int64_t k = 0; k < p_.depth; ++k) {
        multiplied_[at(t, k, p_.depth)] *=
            (norm_weight_.values[at(0, k, 0)] + p_.attrs.norm_offset) / root;
      }
    }
  }
  static Tensor row_range(Numbers& from, int64_t first, int64_t count, int64_t cols) {
    Tensor all = from.tensor({count, cols});
    all.data = from.bytes.data() + first * cols * ir::dtype_size(from.dtype);
    return all;
  }

  const Problem p_;
  Numbers x_, weight_, bias_, residual_, norm_weight_;
  std::vector<double> multiplied_;  // [T, K], what the weight is multiplied with
};

bool can_run(const Tactic& tactic, const Problem& p, int64_t rows) {
  const std::vector<Tensor> in = {{nullptr, p.x, std::vector<int64_t>{rows, p.depth}},
                                  {nullptr, p.weight, std::vector<int64_t>{p.cols, p.depth}}};
  const std::vector<Tensor> out = {
      {nullptr, *ir::parse_dtype(p.attrs.dtype), std::vector<int64_t>{rows, p.cols}}};
  const Launch launch{.in = in, .out = out, .attributes = &p.attrs};
  return tactic.why_not == nullptr || tactic.why_not(launch, cpu().properties()).empty();
}

/// Two products and their gate, each in double.
TEST(MatmulRef, GatesInDouble) {
  ThreadPool pool(2);
  const Tactic& reference = find_op("matmul")->tactics.back();
  constexpr int64_t kRows = 3, kWidth = 19, kDepth = 53;
  const double unit = 2e-6;
  for (const DType weight : {DType::kF32, DType::kBF16}) {
    for (const char* activation : {"silu", "gelu", "relu"}) {
      Problem p{.rows = kRows, .cols = 2 * kWidth, .depth = kDepth, .weight = weight};
      p.attrs = {.bias = true, .activation = activation, .gated = true};
      Product product(p);
      const std::vector<float> got = product.run(reference, pool, 0, kRows);
      ASSERT_EQ(got.size(), static_cast<size_t>(kRows * kWidth));
      for (int64_t i = 0; i < kRows * kWidth; ++i) {
        const double want = product.expected_gated(i / kWidth, i % kWidth);
        EXPECT_NEAR(got[static_cast<size_t>(i)], want, unit * (1 + std::abs(want)))
            << activation << " at " << i;
        EXPECT_NEAR(product.exact(i), want, 1e-12 * (1 + std::abs(want)));
      }
    }
  }
}

TEST(MatmulRef, NormsInDouble) {
  ThreadPool pool(2);
  const Tactic& reference = find_op("matmul")->tactics.back();
  for (const DType norm_type : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const double offset : {0.0, 1.0}) {
      Problem p{.rows = 3, .cols = 37, .depth = 53, .norm_type = norm_type};
      p.attrs = {.bias = true, .residual = true, .activation = "silu"};
      p.attrs.norm = "rms";
      p.attrs.norm_eps = 0.25;  // so large that it shows
      p.attrs.norm_offset = offset;
      Product product(p);
      const std::vector<float> got = product.run(reference, pool, 0, p.rows);
      for (int64_t i = 0; i < p.rows * p.cols; ++i) {
        const double want = product.expected(i / p.cols, i % p.cols);
        EXPECT_NEAR(got[static_cast<size_t>(i)], want, 4e-6 * (1 + std::abs(want))) << i;
        EXPECT_NEAR(product.exact(i), want, 4e-6 * (1 + std::abs(want)));  // rounds x to f32, too
      }
    }
  }
}

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

/// What a sum of K products of normal numbers may be off: after j additions a partial sum is about
/// sqrt(j) and is rounded by up to 2^-24 of it (0.6 of that as a deviation). Chains of at most 384
/// additions, as the panels have, give together 2^-24 * 0.6 * sqrt(384 K / 2); six times that.
double float_error(int64_t depth) {
  const auto chain = static_cast<double>(std::min<int64_t>(depth, 384));
  return 1e-6 + 6 * 0x1p-24 * 0.6 * std::sqrt(chain * static_cast<double>(depth) / 2);
}

TEST(MatmulTactics, AreTheFormulaInDouble) {
  ThreadPool pool(2);
  std::vector<Problem> problems;
  for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int64_t rows = 1; rows <= 70; rows += rows < 20 ? 1 : 7)
      problems.push_back({.rows = rows, .cols = 71, .depth = 77, .weight = weight});
    for (const int64_t cols : {1, 2, 7, 16, 33, 300})
      problems.push_back({.rows = 9, .cols = cols, .depth = 264, .weight = weight});
    for (const int64_t depth : {1, 7, 8, 15, 16, 33, 383, 384, 385, 769, 1153})
      problems.push_back({.rows = 5, .cols = 19, .depth = depth, .weight = weight});
  }
  problems.push_back({.rows = 531, .cols = 67, .depth = 40, .weight = DType::kBF16});
  for (const Problem& p : problems) {
    Product product(p);
    for (const Tactic& tactic : find_op("matmul")->tactics) {
      if (!can_run(tactic, p, p.rows)) continue;
      const std::vector<float> got = product.run(tactic, pool, 0, p.rows);
      double worst = 0;
      for (int64_t i = 0; i < p.rows * p.cols; ++i) {
        const double want = product.expected(i / p.cols, i % p.cols);
        worst = std::max(worst, std::abs(got[static_cast<size_t>(i)] - want));
      }
      // Not <, so that NaN fails.
      EXPECT_LE(worst, float_error(p.depth)) << tactic.name << " T=" << p.rows << " N=" << p.cols
                                             << " K=" << p.depth << " " << ir::dtype_name(p.weight);
    }
  }
}

TEST(MatmulTactics, AddBiasActivationAndResidual) {
  ThreadPool pool(2);
  for (const DType bias : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const char* activation : {"none", "silu", "gelu", "gelu_new", "relu"}) {
      for (const int64_t rows : {1, 7, 40}) {
        Problem p{.rows = rows, .cols = 45, .depth = 31, .bias_type = bias};
        p.attrs = {.bias = true, .residual = true, .activation = activation};
        Product product(p);
        for (const Tactic& tactic : find_op("matmul")->tactics) {
          if (!can_run(tactic, p, p.rows)) continue;
          const std::vector<float> got = product.run(tactic, pool, 0, p.rows);
          for (int64_t i = 0; i < p.rows * p.cols; ++i) {
            const double want = product.expected(i / p.cols, i % p.cols);
            ASSERT_NEAR(got[static_cast<size_t>(i)], want, 5e-6 * (1 + std::abs(want)))
                << tactic.name << " " << activation << " at " << i;
          }
        }
      }
    }
  }
}

/// What makes a text independent of the texts beside it.
TEST(MatmulTactics, GiveARowTheSameBitsInAnyBatch) {
  ThreadPool one(1), three(3);
  constexpr int64_t kRows = 70;
  for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16}) {
    Problem p{.rows = kRows, .cols = 83, .depth = 1061, .weight = weight};
    p.attrs = {.bias = true, .residual = true, .activation = "silu"};
    Product product(p);
    for (const Tactic& tactic : find_op("matmul")->tactics) {
      std::vector<float> first(static_cast<size_t>(kRows * p.cols));  // each row's first result
      std::vector<bool> seen(kRows);
      for (int64_t count = 1; count <= kRows; ++count) {
        if (!can_run(tactic, p, count)) continue;
        const int64_t begin = (count * 29) % (kRows - count + 1);
        const std::vector<float> got =
            product.run(tactic, count % 2 == 0 ? one : three, begin, count);
        for (int64_t t = begin; t < begin + count; ++t) {
          const float* row = got.data() + (t - begin) * p.cols;
          float* expected = first.data() + t * p.cols;
          const size_t bytes = static_cast<size_t>(p.cols) * sizeof(float);
          if (!seen[static_cast<size_t>(t)]) std::memcpy(expected, row, bytes);
          seen[static_cast<size_t>(t)] = true;
          ASSERT_EQ(std::memcmp(expected, row, bytes), 0)
              << tactic.name << " row " << t << " of " << count << " from " << begin;
        }
      }
    }
  }
}

/// bf16 products round x, by at most 2^-9 of it, and nothing else.
TEST(MatmulTactics, RoundOnlyXForBf16Products) {
  ThreadPool pool(2);
  for (const int64_t depth : {1, 2, 31, 767, 768, 769, 1542}) {
    Problem p{.rows = 70, .cols = 47, .depth = depth, .weight = DType::kBF16};
    p.attrs.bf16_products = true;
    Problem rounded = p;
    rounded.x = DType::kBF16;  // the same numbers, rounded to bf16
    Product product(p), expected(rounded);
    for (const Tactic& tactic : find_op("matmul")->tactics) {
      if (!can_run(tactic, p, p.rows)) continue;
      const bool rounds = std::string(tactic.name).ends_with("bf16");
      const std::vector<float> got = product.run(tactic, pool, 0, p.rows);
      for (int64_t i = 0; i < p.rows * p.cols; ++i) {
        const int64_t t = i / p.cols, n = i % p.cols;
        const double want = rounds ? expected.expected(t, n) : product.expected(t, n);
        ASSERT_NEAR(got[static_cast<size_t>(i)], want, float_error(depth))
            << tactic.name << " K=" << depth << " at " << i;
      }
    }
    p.attrs.bf16_products = false;
    for (const Tactic& tactic : find_op("matmul")->tactics) {
      if (std::string(tactic.name).ends_with("bf16")) {
        EXPECT_FALSE(can_run(tactic, p, p.rows));
      }
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
  const Matmul gated{.bias = true, .activation = "silu", .gated = true};
  EXPECT_EQ(
      ir::to_string(find_op("matmul")->infer(std::vector{x, weight, bias}, to_attrs(gated)).at(0)),
      "f32[T, 3]");
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
  EXPECT_NE(refusal({x, {DType::kF32, {5, 8}}}, {.gated = true}).find("has [5] rows"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight, {DType::kF32, {3}}}, {.bias = true, .gated = true})
                .find("the bias is [3] instead of [6]"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight, {DType::kF32, {"T", 3}}}, {.residual = true, .gated = true})
                .find("a gated product has no residual"),
            std::string::npos);
  const ir::TensorType norm_weight{DType::kBF16, {8}};
  EXPECT_EQ(refusal({x, weight, norm_weight}, {.norm = "rms"}), "");
  EXPECT_NE(refusal({x, weight}, {.norm = "rms"}).find("2 inputs instead of 3"), std::string::npos);
  EXPECT_NE(refusal({x, weight, {DType::kF32, {6}}}, {.norm = "rms"})
                .find("the norm weight is [6] instead of [8]"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight, norm_weight}, {.norm = "layer"}).find("unknown norm layer"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight}, {.activation = "tan"}).find("unknown activation tan"),
            std::string::npos);
  EXPECT_NE(refusal({x, weight}, {.dtype = "i32"}).find("output type i32"), std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
