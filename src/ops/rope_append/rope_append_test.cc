#include "ops/rope_append/rope_append.h"

#include <cmath>

#include <gtest/gtest.h>

#include "base/thread_pool.h"
#include "ops/common/scalar_access.h"
#include "ops/harness/attention_oracle.h"
#include "ops/harness/kv_case.h"
#include "ops/op.h"

namespace millrace::ops {
namespace {

constexpr float kUntouched = -12345.0f;

/// One call of rope_append: inputs of f32, and the formula in float64.
class AppendCase {
 public:
  AppendCase(const RopeAppend& attributes, KvCaseSpec spec) : a(attributes), kv(sized(spec)) {
    const int64_t widths[] = {int64_t{a.heads} * a.head_size, int64_t{a.kv_heads} * a.head_size,
                              int64_t{a.kv_heads} * a.v_head_size};
    const int64_t packed_width = widths[0] + widths[1] + widths[2];
    columns_[0] = 0;
    columns_[1] = a.packed ? widths[0] : 0;
    columns_[2] = a.packed ? widths[0] + widths[1] : 0;
    for (size_t i = 0; i < 3; ++i) {
      widths_[i] = a.packed ? packed_width : widths[i];
      if (a.packed && i > 0) continue;
      inputs_[i] = noise(i, static_cast<size_t>(kv.rows() * widths_[i]));
    }
    angles_ = noise(3, static_cast<size_t>(kv.rows() * a.rotary_dim));
    q_norm_ = noise(4, static_cast<size_t>(a.head_size));
    k_norm_ = noise(5, static_cast<size_t>(a.head_size));
    kv.fill_pool();
    q_out.assign(static_cast<size_t>(kv.rows() * widths[0]), kUntouched);
  }

  void run(const Tactic& tactic, int threads) {
    std::vector<Tensor> in;
    for (size_t i = 0; i < (a.packed ? 1 : 3); ++i)
      in.emplace_back(inputs_[i].data(), ir::DType::kF32, std::vector{kv.rows(), widths_[i]});
    for (const Tensor& tensor : kv.tensors())
      in.push_back(tensor);
    if (a.rotary_dim > 0) {
      in.emplace_back(angles_.data(), ir::DType::kF32,
                      std::vector<int64_t>{kv.rows(), a.rotary_dim});
    }
    for (auto* norm : {&q_norm_, &k_norm_}) {
      if (a.qk_norm)
        in.emplace_back(norm->data(), ir::DType::kF32, std::vector<int64_t>{a.head_size});
    }
    const std::vector<Tensor> out = {
        {q_out.data(), ir::DType::kF32, std::vector{kv.rows(), int64_t{a.heads} * a.head_size}},
        {&kv.view, ir::DType::kState, std::span<const int64_t>{}}};
    ThreadPool pool(threads);
    device::Queue queue{.pool = &pool};
    tactic.run({.in = in, .out = out, .attributes = &a, .queue = &queue});
  }

  /// Head `h` of Q (plane 0), K or V in float64.
  std::vector<double> exact(size_t plane, int64_t row, int64_t h) const {
    const int64_t size = plane == 2 ? a.v_head_size : a.head_size;
    const auto& values = inputs_[a.packed ? 0 : plane];
    std::vector<double> x(static_cast<size_t>(size));
    for (int64_t d = 0; d < size; ++d) {
      x[static_cast<size_t>(d)] =
          values[static_cast<size_t>(row * widths_[plane] + columns_[plane] + h * size + d)];
    }
    if (plane == 2) return x;
    if (a.qk_norm) normalise(plane == 0 ? q_norm_ : k_norm_, &x);
    for (int pair = 0; pair < a.rotary_dim / 2; ++pair) {
      const double c = angles_[static_cast<size_t>(row * a.rotary_dim + pair)];
      const double s = angles_[static_cast<size_t>(row * a.rotary_dim + a.rotary_dim / 2 + pair)];
      const auto first = static_cast<size_t>(a.interleaved ? 2 * pair : pair);
      const size_t second =
          a.interleaved ? first + 1 : first + static_cast<size_t>(a.rotary_dim / 2);
      const double x0 = x[first], x1 = x[second];
      x[first] = x0 * c - x1 * s;
      x[second] = x1 * c + x0 * s;
    }
    return x;
  }

  RopeAppend a;
  KvCase kv;
  std::vector<float> q_out;

 private:
  KvCaseSpec sized(KvCaseSpec spec) const {
    spec.kv_heads = a.kv_heads;
    spec.k_size = a.head_size;
    spec.v_size = a.v_head_size;
    spec.has_new_tokens = false;
    return spec;
  }

  static std::vector<float> noise(uint64_t what, size_t count) {
    std::vector<float> out(count);
    for (size_t i = 0; i < count; ++i)
      out[i] = hashed_value(99, what, i);
    return out;
  }

  void normalise(const std::vector<float>& weight, std::vector<double>* x) const {
    double squares = 0;
    for (const double v : *x)
      squares += v * v;
    const double rms = std::sqrt(squares / static_cast<double>(x->size()) + a.qk_norm_eps);
    for (size_t d = 0; d < x->size(); ++d)
      (*x)[d] = (*x)[d] / rms * (a.qk_norm_offset + double{weight[d]});
  }

  std::vector<float> inputs_[3], angles_, q_norm_, k_norm_;
  int64_t widths_[3], columns_[3];
};

const KvCaseSpec kRagged = {.sequences = {{0, 19, RequestType::kContext},
                                          {7, 5, RequestType::kContext},
                                          {3, 0, RequestType::kContext},
                                          {16, 1, RequestType::kGeneration},
                                          {47, 2, RequestType::kGeneration}},
                            .row_gap = 2};

/// Of one value: in f32 four roundings of products of up to 5.
double rounding(ir::DType dtype) {
  switch (dtype) {
    case ir::DType::kBF16:
      return 0x1p-8;
    case ir::DType::kF16:
      return 0x1p-11;
    default:
      return 1.2e-6;
  }
}

/// Of one value in 8 bits, half of the distance to the next one: int8 has 127 steps up to the
/// largest element of the vector, e4m3 eight from a power of two to the next, down to 2^-6.
double half_step(ir::DType dtype, double value, double largest) {
  constexpr double kOtherRoundings = 1.001;
  if (dtype == ir::DType::kI8) return largest / 127 / 2 * kOtherRoundings;
  const int exponent = std::max(std::ilogb(value), -6);
  return std::ldexp(1.0, exponent - 4) * kOtherRoundings;
}

class RopeAppendTest : public testing::TestWithParam<size_t> {
 protected:
  const Tactic& tactic = find_op("rope_append")->tactics[GetParam()];

  static bool close(double got, double want, ir::DType dtype) {
    return std::abs(got - want) <= rounding(dtype) * std::max(1.0, std::abs(want));
  }

  /// Everything against float64: Q, the new K and V, and that nothing else has changed.
  void check(const RopeAppend& attributes, const KvCaseSpec& spec) const {
    AppendCase c(attributes, spec);
    AppendCase before = c;
    c.run(tactic, 2);
    const RopeAppend& a = c.a;
    std::vector<bool> owned(static_cast<size_t>(c.kv.rows()));
    for (int64_t s = 0; s < c.kv.num_sequences(); ++s) {
      const auto& sequence = spec.sequences[static_cast<size_t>(s)];
      const char* own_phase = sequence.type == RequestType::kContext ? "context" : "generation";
      if (a.phase != "both" && a.phase != own_phase) continue;
      for (int64_t i = 0; i < sequence.rows; ++i) {
        const int64_t row = c.kv.query_start[static_cast<size_t>(s)] + i;
        owned[static_cast<size_t>(row)] = true;
        check_queries(c, row);
        check_stored(c, s, row, sequence.past + i);
        for (int64_t g = 0; g < a.kv_heads; ++g) {  // so that what is left can be compared
          c.kv.clear(KvPlane::kK, s, g, sequence.past + i);
          c.kv.clear(KvPlane::kV, s, g, sequence.past + i);
        }
      }
    }
    EXPECT_EQ(c.kv.pool, before.kv.pool) << "wrote to slots of other tokens";
    const int64_t width = int64_t{a.heads} * a.head_size;
    for (int64_t i = 0; i < c.kv.rows() * width; ++i) {
      if (!owned[static_cast<size_t>(i / width)]) {
        ASSERT_EQ(c.q_out[static_cast<size_t>(i)], kUntouched);
      }
    }
  }

  static void check_queries(const AppendCase& c, int64_t row) {
    for (int h = 0; h < c.a.heads; ++h) {
      const std::vector<double> want = c.exact(0, row, h);
      for (size_t d = 0; d < want.size(); ++d) {
        const auto at = static_cast<size_t>((row * c.a.heads + h) * c.a.head_size) + d;
        ASSERT_TRUE(close(c.q_out[at], want[d], ir::DType::kF32))
            << "row " << row << " head " << h << " element " << d << ": " << c.q_out[at]
            << " instead of " << want[d];
      }
    }
  }

  static void check_stored(const AppendCase& c, int64_t s, int64_t row, int64_t position) {
    for (const KvPlane plane : {KvPlane::kK, KvPlane::kV}) {
      for (int g = 0; g < c.a.kv_heads; ++g) {
        const std::vector<double> want = c.exact(plane == KvPlane::kK ? 1 : 2, row, g);
        double largest = 0;
        for (const double x : want)
          largest = std::max(largest, std::abs(x));
        for (size_t d = 0; d < want.size(); ++d) {
          const float got = c.kv.stored(plane, s, g, position, static_cast<int64_t>(d));
          const bool near =
              ir::dtype_size(c.kv.spec().dtype) > 1
                  ? close(got, want[d], c.kv.spec().dtype)
                  : std::abs(got - want[d]) <= half_step(c.kv.spec().dtype, want[d], largest);
          ASSERT_TRUE(near) << "sequence " << s << " position " << position << " head " << g
                            << " element " << d << ": " << got << " instead of " << want[d];
        }
      }
    }
  }
};

const RopeAppend kLlama = {
    .heads = 6, .kv_heads = 2, .head_size = 16, .v_head_size = 16, .rotary_dim = 16};

TEST_P(RopeAppendTest, IsTheFormula) {
  for (const bool interleaved : {false, true}) {
    for (const bool packed : {false, true}) {
      for (const int rotary_dim : {0, 8, 10, 24}) {
        for (const bool norm : {false, true}) {
          SCOPED_TRACE(str("interleaved ", interleaved, ", packed ", packed, ", rotary_dim ",
                           rotary_dim, ", norm ", norm));
          check({.heads = 3,
                 .kv_heads = 1,
                 .head_size = 24,
                 .v_head_size = 24,
                 .rotary_dim = rotary_dim,
                 .interleaved = interleaved,
                 .qk_norm = norm,
                 .qk_norm_offset = norm && packed ? 1.0 : 0.0,
                 .packed = packed},
                kRagged);
        }
      }
    }
  }
}

TEST_P(RopeAppendTest, LeavesTheOtherPhaseAlone) {
  for (const char* phase : {"context", "generation"}) {
    SCOPED_TRACE(phase);
    check({.heads = 3,
           .kv_heads = 1,
           .head_size = 24,
           .v_head_size = 24,
           .rotary_dim = 24,
           .phase = phase},
          kRagged);
  }
}

TEST_P(RopeAppendTest, KnowsManyHeads) {
  for (const auto& [heads, kv_heads, size, v_size] :
       {std::array{32, 8, 64, 64}, {4, 4, 80, 80}, {4, 2, 192, 128}, {2, 1, 128, 20}}) {
    SCOPED_TRACE(str(heads, "/", kv_heads, " heads of ", size, "/", v_size));
    check({.heads = heads,
           .kv_heads = kv_heads,
           .head_size = size,
           .v_head_size = v_size,
           .rotary_dim = size,
           .qk_norm = true,
           .packed = true},
          kRagged);
  }
}

TEST_P(RopeAppendTest, StoresEveryCacheTypePagedOrNot) {
  for (const ir::DType dtype :
       {ir::DType::kF32, ir::DType::kBF16, ir::DType::kF16, ir::DType::kI8, ir::DType::kF8E4M3}) {
    for (const int block : {1, 4, 64, 0}) {
      SCOPED_TRACE(str(ir::dtype_name(dtype), ", ", block, " tokens per block"));
      KvCaseSpec spec = kRagged;
      spec.dtype = dtype;
      spec.tokens_per_block = block;
      check(kLlama, spec);
    }
  }
}

TEST_P(RopeAppendTest, BitsDoNotDependOnThreads) {
  RopeAppend a = kLlama;
  a.qk_norm = true;
  AppendCase one(a, kRagged), three(a, kRagged);
  one.run(tactic, 1);
  three.run(tactic, 3);
  EXPECT_EQ(one.q_out, three.q_out);
  EXPECT_EQ(one.kv.pool, three.kv.pool);
}

INSTANTIATE_TEST_SUITE_P(Tactics, RopeAppendTest,
                         testing::ValuesIn(runnable_tactics("rope_append")), [](const auto& test) {
                           return std::string(find_op("rope_append")->tactics[test.param].name);
                         });

}  // namespace
}  // namespace millrace::ops
