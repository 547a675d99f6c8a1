// What attention's tests share: queries, launches, and the formula in float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "ops/common/attention_ref.h"
#include "ops/harness/attention_case.h"
#include "ops/harness/kv_case.h"
#include "ops/op.h"

namespace millrace::ops {

/// One call of an attention op on a KvCase.
class AttentionCase {
 public:
  AttentionCase(const KvCaseSpec& spec, const AttentionShape& shape) : kv(spec), shape_(shape) {
    q_.resize(static_cast<size_t>(kv.rows() * shape.heads * shape.head_size), NAN);
    for (int64_t s = 0; s < kv.num_sequences(); ++s) {
      const auto& sequence = spec.sequences[static_cast<size_t>(s)];
      for (int64_t i = 0; i < sequence.rows; ++i) {
        float* row = q_.data() + (kv.query_start[static_cast<size_t>(s)] + i) * q_columns();
        for (int64_t c = 0; c < q_columns(); ++c) {
          row[c] =
              2 * hashed_value(spec.seed + 77, static_cast<uint64_t>(s),
                               static_cast<uint64_t>(sequence.past + i), static_cast<uint64_t>(c));
        }
      }
    }
    for (uint64_t h = 0; h < static_cast<uint64_t>(shape.heads); ++h)
      sinks_.push_back(3 * hashed_value(spec.seed + 78, h));
    for (uint64_t i = 0; i < static_cast<uint64_t>(shape.relative_buckets * shape.heads); ++i)
      table_.push_back(2 * hashed_value(spec.seed + 79, i));
    if (shape.alibi_max_bias > 0) slopes_ = paper_slopes(shape.heads, shape.alibi_max_bias);
  }

  /// The inputs that the attributes ask for: hashed numbers.
  void add_logit_inputs(std::vector<Tensor>& in) {
    if (shape_.sink_logits) {
      in.push_back({sinks_.data(), ir::DType::kF32, std::vector<int64_t>{shape_.heads}});
    }
    if (shape_.relative_buckets > 0) {
      in.push_back({table_.data(), ir::DType::kF32,
                    std::vector<int64_t>{shape_.relative_buckets, shape_.heads}});
    }
  }

  /// [T, H*Dv]; rows that the op does not write hold `untouched`.
  std::vector<float> run(const Op& op, const Tactic& tactic, const ir::Attrs& attrs, int threads) {
    std::vector<float> result(static_cast<size_t>(kv.rows() * out_columns()), kUntouched);
    std::vector<Tensor> in = {{q_.data(), ir::DType::kF32, std::vector{kv.rows(), q_columns()}}};
    for (const Tensor& tensor : kv.tensors())
      in.push_back(tensor);
    const std::vector<Tensor> out = {
        {result.data(), ir::DType::kF32, std::vector{kv.rows(), out_columns()}}};
    if (op.alias_input >= 0) in.push_back(out[0]);
    add_logit_inputs(in);
    if (shape_.beams > 0) {
      for (const Tensor& tensor : kv.beam_tensors())
        in.push_back(tensor);
    }
    ThreadPool pool(threads);
    device::Queue queue{.pool = &pool};
    const auto attributes = op.parse_attrs(attrs);
    Launch launch{.in = in, .out = out, .attributes = attributes.get(), .queue = &queue};
    device::Properties properties;
    properties.threads = threads;
    const int64_t bytes = tactic.workspace == nullptr ? 0 : tactic.workspace(launch, properties);
    std::vector<std::byte> workspace(static_cast<size_t>(bytes) + 64, std::byte{0xff});
    launch.workspace = workspace.data() + 64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64;
    tactic.run(launch);
    return result;
  }

  /// Largest difference from float64 over the rows of this type, relative to the largest value. NaN
  /// when a row of another type, or of no sequence, was written.
  double error(const std::vector<float>& got, RequestType type) {
    double largest = 0, worst = 0;
    if (exact_.empty()) {
      for (int64_t s = 0; s < kv.num_sequences(); ++s)
        exact_.push_back(exact_rows(s));
    }
    std::vector<bool> owned(static_cast<size_t>(kv.rows()));
    for (int64_t s = 0; s < kv.num_sequences(); ++s) {
      const auto& sequence = kv.spec().sequences[static_cast<size_t>(s)];
      if (sequence.type != type) continue;
      for (int64_t i = 0; i < sequence.rows; ++i) {
        const int64_t row = kv.query_start[static_cast<size_t>(s)] + i;
        owned[static_cast<size_t>(row)] = true;
        const double* want = exact_[static_cast<size_t>(s)].data() + i * out_columns();
        for (int64_t c = 0; c < out_columns(); ++c) {
          const double difference =
              std::abs(got[static_cast<size_t>(row * out_columns() + c)] - want[c]);
          largest = std::max(largest, std::abs(want[c]));
          if (!(difference <= worst)) worst = difference;
        }
      }
    }
    for (int64_t i = 0; i < kv.rows() * out_columns(); ++i) {
      const bool untouched = got[static_cast<size_t>(i)] == kUntouched;
      if (untouched == owned[static_cast<size_t>(i / out_columns())]) return NAN;
    }
    return largest == 0 ? 0 : worst / largest;
  }

  /// The rows of one sequence, cut out of a result.
  std::vector<float> rows_of(const std::vector<float>& result, size_t sequence) const {
    const auto first = result.begin() + kv.query_start[sequence] * out_columns();
    return {first, first + kv.query_length[sequence] * out_columns()};
  }

  int64_t q_columns() const { return int64_t{shape_.heads} * shape_.head_size; }
  int64_t out_columns() const { return int64_t{shape_.heads} * shape_.v_head_size; }

  KvCase kv;

 private:
  static constexpr float kUntouched = -12345.0f;

  /// K or V of one head, [length, size].
  std::vector<double> plane(KvPlane which, int64_t sequence, int64_t kv_head) const {
    const int64_t size = which == KvPlane::kK ? shape_.head_size : shape_.v_head_size;
    std::vector<double> values;
    for (int64_t j = 0; j < kv.sequence_length[static_cast<size_t>(sequence)]; ++j) {
      for (int64_t d = 0; d < size; ++d)
        values.push_back(kv.value(which, sequence, kv_head, j, d));
    }
    return values;
  }

  /// The formula of ops/attention/attention.h for the rows of one sequence, [rows, H*Dv].
  std::vector<double> exact_rows(int64_t sequence) const {
    const auto& spec = kv.spec().sequences[static_cast<size_t>(sequence)];
    std::vector<double> out(static_cast<size_t>(spec.rows * out_columns()));
    for (int h = 0; h < shape_.heads; ++h) {
      const int64_t kv_head = h / (shape_.heads / shape_.kv_heads);
      const std::vector<double> k = plane(KvPlane::kK, sequence, kv_head);
      const std::vector<double> v = plane(KvPlane::kV, sequence, kv_head);
      for (int64_t i = 0; i < spec.rows; ++i) {
        const int64_t row = kv.query_start[static_cast<size_t>(sequence)] + i;
        const float* q = q_.data() + row * q_columns() + h * shape_.head_size;
        attend(h, spec.past + i, q, k, v, out.data() + i * out_columns() + h * shape_.v_head_size);
      }
    }
    return out;
  }

  /// ALiBi's slopes as its paper states them: a geometric sequence for a power of two of heads,
  /// else that of the power below, then every other one of the power above.
  static std::vector<double> paper_slopes(int heads, double max_bias) {
    int power = 1;
    while (power * 2 <= heads)
      power *= 2;
    std::vector<double> slopes;
    for (int i = 1; i <= power; ++i)
      slopes.push_back(std::pow(std::pow(2.0, -max_bias / power), i));
    for (int i = 1; static_cast<int>(slopes.size()) < heads; i += 2)
      slopes.push_back(std::pow(std::pow(2.0, -max_bias / (2 * power)), i));
    return slopes;
  }

  static double rounded_bf16(double x) {
    return ir::bf16_to_float(ir::float_to_bf16(static_cast<float>(x)));
  }

  double logit(int h, double dot, int64_t position, int64_t key) const {
    double x = dot * double{shape_.scale};
    if (shape_.softcap > 0) x = double{shape_.softcap} * std::tanh(x / double{shape_.softcap});
    if (shape_.alibi_bf16) {
      const double slope = rounded_bf16(slopes_[static_cast<size_t>(h)]);
      x += rounded_bf16(slope * rounded_bf16(static_cast<double>(key))) * double{shape_.scale};
    } else if (shape_.alibi_max_bias > 0) {
      x -= slopes_[static_cast<size_t>(h)] * static_cast<double>(position - key);
    }
    if (shape_.relative_buckets > 0) {
      const RelativeBuckets bucket{shape_.relative_buckets, shape_.relative_max_distance, false};
      x += double{table_[static_cast<size_t>(bucket(key - position) * shape_.heads + h)]};
    }
    return x;
  }

  void attend(int h, int64_t position, const float* q, const std::vector<double>& k,
              const std::vector<double>& v, double* out) const {
    std::vector<double> p(static_cast<size_t>(position + 1), -INFINITY);
    for (int64_t j = 0; j <= position; ++j) {
      const bool visible =
          shape_.window == 0 || j > position - shape_.window || j < shape_.sink_tokens;
      double dot = 0;
      for (int64_t d = 0; d < shape_.head_size; ++d)
        dot += double{q[d]} * k[static_cast<size_t>(j * shape_.head_size + d)];
      if (visible) p[static_cast<size_t>(j)] = logit(h, dot, position, j);
    }
    double largest = *std::max_element(p.begin(), p.end());
    const double sink = shape_.sink_logits ? double{sinks_[static_cast<size_t>(h)]} : -INFINITY;
    largest = std::max(largest, sink);
    double total = std::exp(sink - largest);
    for (double& x : p)
      total += x = std::exp(x - largest);
    for (size_t j = 0; j < p.size(); ++j) {
      for (size_t d = 0; d < static_cast<size_t>(shape_.v_head_size); ++d)
        out[d] += p[j] / total * v[j * static_cast<size_t>(shape_.v_head_size) + d];
    }
  }

  AttentionShape shape_;
  std::vector<float> q_, sinks_, table_;
  std::vector<double> slopes_;              // of ALiBi
  std::vector<std::vector<double>> exact_;  // by sequence
};

/// Numbers of the op's tactics that the machine which runs the tests can run on f32: all but those
/// of other instruction sets.
inline std::vector<size_t> runnable_tactics(const char* op) {
  const Tensor q(nullptr, ir::DType::kF32, std::vector<int64_t>{1, 1});
  Launch launch;
  launch.in = std::span(&q, 1);
  const auto attributes = find_op(op)->parse_attrs({});
  launch.attributes = attributes.get();
  const auto device = device::make_cpu_device(1);
  const std::span<const Tactic> tactics = find_op(op)->tactics;
  std::vector<size_t> numbers;
  for (size_t i = 0; i < tactics.size(); ++i) {
    const auto why_not = tactics[i].why_not;
    if (why_not == nullptr || why_not(launch, device->properties()).empty()) numbers.push_back(i);
  }
  return numbers;
}

/// Head counts and sizes that tests go through.
inline const std::vector<AttentionShape>& attention_test_shapes() {
  static const std::vector<AttentionShape> shapes = {
      {6, 2, 16, 16, 0.25f, 0, 0},         {3, 1, 24, 24, 0.2f, 0, 0},
      {4, 4, 64, 64, 0.125f, 0, 0},        {32, 8, 64, 64, 0.125f, 0, 0},
      {6, 2, 80, 80, 0.11180340f, 0, 0},   {5, 5, 128, 128, 0.088388346f, 0, 0},
      {4, 2, 192, 128, 0.072168784f, 0, 0}};
  return shapes;
}

/// Everything that makes of logits more than scaled products.
inline const std::vector<AttentionShape>& attention_logit_shapes() {
  const AttentionShape base{6, 2, 24, 16, 0.2F, 0, 0};
  static const std::vector<AttentionShape> shapes = [&] {
    std::vector<AttentionShape> all(9, base);
    all[0].softcap = 3;
    all[1].alibi_max_bias = 8;
    all[2].alibi_max_bias = 5;
    all[2].heads = all[2].kv_heads = 8;
    all[3].alibi_max_bias = 8;
    all[3].alibi_bf16 = true;
    all[4].sink_logits = true;
    all[5].relative_buckets = 32;
    all[5].relative_max_distance = 128;
    all[6].relative_buckets = 7;
    all[6].relative_max_distance = 20;
    all[7].sink_logits = true;
    all[7].window = 33;
    all[7].softcap = 5;
    all[8] = {6, 2, 24, 16, 0.2F, 50, 3, 12, 4, false, true, 6, 20};
    return all;
  }();
  return shapes;
}

}  // namespace millrace::ops
