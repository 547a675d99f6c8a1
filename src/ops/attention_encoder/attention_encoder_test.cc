#include "ops/attention_encoder/attention_encoder.h"

#include <cmath>

#include <gtest/gtest.h>

#include "ops/harness/test_numbers.h"

namespace millrace::ops {
namespace {

constexpr int kHeads = 2, kSize = 2, kValueSize = 3;
constexpr int64_t kRows = 7;  // of which rows 1 to 3 and 4 to 5 are two sequences'

template <typename F>
HostTensor made(std::vector<int64_t> shape, const F& value) {
  std::vector<float> values(static_cast<size_t>(shape[0] * shape[1]));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(value(static_cast<double>(i)));
  return host_floats(std::move(shape), values);
}

AttentionEncoder attributes() {
  return {.heads = kHeads,
          .kv_heads = kHeads,
          .head_size = kSize,
          .v_head_size = kValueSize,
          .scale = 0.5};
}

std::vector<HostTensor> inputs() {
  return {made({kRows, kHeads * kSize}, [](double i) { return 2 * std::sin(.7 * i); }),
          made({kRows, kHeads * kSize}, [](double i) { return std::cos(.9 * i + 1); }),
          made({kRows, kHeads * kValueSize}, [](double i) { return std::sin(1.3 * i + 2); }),
          host_ints({2}, {1, 4}), host_ints({2}, {3, 2})};
}

/// The rows that sequences own.
HostTensor owned(const HostTensor& out) {
  const std::vector<float> all = out.floats();
  return host_floats({5, kHeads * kValueSize},
                     {all.begin() + kHeads * kValueSize, all.end() - kHeads * kValueSize});
}

// torch 2.15 in float64: softmax(0.5 q k^T) v of each sequence and head.
TEST(AttentionEncoder, SeesAllRowsOfTheSequenceAndNoOther) {
  expect_near(owned(call_op("attention_encoder", to_attrs(attributes()), inputs())[0]),
              {-0.421008770541, 0.074212368696,  0.460712228975,  0.153436211352, -0.624566116175,
               -0.487577624208, -0.469210904592, -0.126615503431, 0.401471923489, 0.491709782229,
               0.211613956135,  -0.378496820822, -0.064190375576, 0.338953902306, 0.245529924202,
               0.04109553593,   -0.528221948716, -0.323693047998, 0.907234017364, -0.007394327934,
               -0.911189990675, -0.235140154818, 0.6819479489,    0.59998068435,  -0.107046841252,
               -0.946059418631, -0.399092741388, 0.299581357228,  0.742209320014, 0.097498888394});
}

// The same plus the bias of transformers' T5Attention._relative_position_bucket, 8 buckets of up to
// 20 positions.
TEST(AttentionEncoder, AddsABiasByDistance) {
  AttentionEncoder a = attributes();
  a.relative_buckets = 8;
  a.relative_max_distance = 20;
  std::vector<HostTensor> in = inputs();
  in.push_back(made({8, kHeads}, [](double i) { return std::cos(2.1 * i); }));
  expect_near(owned(call_op("attention_encoder", to_attrs(a), in)[0]),
              {-0.151377187248, 0.085414777705,  0.197073900881,  0.180308936241, -0.62698920143,
               -0.515746693562, -0.755846732542, -0.027900477842, 0.740920066571, 0.777537801661,
               0.516110348458,  -0.501419983062, 0.158242592546,  0.788683706385, 0.263701341036,
               0.313060556894,  -0.64909232208,  -0.66032342953,  0.961666619081, 0.042980262687,
               -0.938672305237, -0.220175583943, 0.68363440725,   0.585918365406, -0.146578282803,
               -0.982643747177, -0.379133829311, -0.184474534443, 0.687657799137, 0.552369822723});
}

TEST(AttentionEncoder, ChecksItsInputs) {
  const ir::TensorType q{ir::DType::kBF16, {"T", 4}}, v{ir::DType::kBF16, {"T", 6}};
  const ir::TensorType owners{ir::DType::kI32, {"S"}};
  const ir::Attrs plain = to_attrs(attributes());
  EXPECT_EQ(infer_types("attention_encoder", {q, q, v, owners, owners}, plain),
            (std::vector<ir::TensorType>{v}));
  EXPECT_NE(refusal("attention_encoder", {q, q, q, owners, owners}, plain).find("v must be"),
            std::string::npos);
  EXPECT_NE(refusal("attention_encoder", {q, q, v, owners}, plain).find("5 inputs"),
            std::string::npos);
  EXPECT_NE(refusal("attention_encoder", {q, q, v, owners, q}, plain).find("query_length"),
            std::string::npos);
  AttentionEncoder biased = attributes();
  biased.relative_buckets = 32;
  EXPECT_NE(refusal("attention_encoder", {q, q, v, owners, owners, {ir::DType::kF32, {32, 3}}},
                    to_attrs(biased))
                .find("bias must be"),
            std::string::npos);
  biased.relative_buckets = 7;
  EXPECT_NE(refusal("attention_encoder", {q, q, v, owners, owners, {ir::DType::kF32, {7, 2}}},
                    to_attrs(biased))
                .find("even"),
            std::string::npos);
  AttentionEncoder unscaled = attributes();
  unscaled.scale = 0;
  EXPECT_NE(
      refusal("attention_encoder", {q, q, v, owners, owners}, to_attrs(unscaled)).find("scale"),
      std::string::npos);
}

}  // namespace
}  // namespace millrace::ops
