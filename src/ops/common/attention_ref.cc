#include "ops/common/attention_ref.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/common/kv_elements.h"
#include "ops/common/scalar_access.h"
#include "ops/common/softmax_ref.h"

namespace millrace::ops {
namespace {

constexpr size_t kQ = 0, kSequence = 1, kCache = kSequence + kNumSequenceInputs;

/// One query vector of one sequence.
struct Query {
  int64_t sequence, row, position, head;
};

/// Calls `visit(position)` for the keys that a query sees, in order.
template <typename Visit>
void for_each_visible(const AttentionShape& shape, int64_t position, const Visit& visit) {
  const int64_t begin = shape.window_begin(position);
  for (int64_t j = 0; j < std::min<int64_t>(shape.sink_tokens, begin); ++j)
    visit(j);
  for (int64_t j = begin; j <= position; ++j)
    visit(j);
}

/// What the attributes add to the logits of one head.
class LogitsOf {
 public:
  LogitsOf(const Launch& launch, const AttentionShape& shape, int64_t head)
      : in_(launch.in),
        shape_(shape),
        head_(head),
        logits_(shape.head_logits(static_cast<int>(head))) {}

  double logit(double product, int64_t position, int64_t key) const {
    double logit = logits_.scaled(product);
    if (shape_.alibi_max_bias > 0) logit += logits_.bias<double>(position, key);
    if (shape_.relative_buckets > 0) {
      const Tensor& table = shape_.relative_bias_of(in_);
      const int64_t bucket = shape_.buckets()(key - position);
      logit += double{load_float(table.data, table.dtype, bucket * shape_.heads + head_)};
    }
    return logit;
  }
  /// -infinity where there is none.
  double sink() const {
    if (!shape_.sink_logits) return -INFINITY;
    const Tensor& sinks = shape_.sinks_of(in_);
    return load_float(sinks.data, sinks.dtype, head_);
  }

 private:
  std::span<const Tensor> in_;
  const AttentionShape& shape_;
  int64_t head_;
  HeadLogits logits_;
};

/// softmax(logits) V of one head, [Dv], over the keys in order.
template <typename T>
void attend(const Launch& launch, const AttentionShape& shape, const SequenceRows& sequences,
            const Query& query, double* out) {
  const Tensor& q_rows = launch.in[kQ];
  const int64_t kv_head = query.head / shape.group();
  std::array<double, kMaxHeadSize> q;
  for (int d = 0; d < shape.head_size; ++d) {
    q[static_cast<size_t>(d)] = load_float(
        q_rows.data, q_rows.dtype, (query.row * shape.heads + query.head) * shape.head_size + d);
  }
  const LogitsOf logits(launch, shape, query.head);
  SoftmaxMean mean(out, shape.v_head_size, logits.sink());
  for_each_visible(shape, query.position, [&](int64_t j) {
    const auto* k = reinterpret_cast<const T*>(sequences.k(query.sequence, kv_head, j));
    const auto* v = reinterpret_cast<const T*>(sequences.v(query.sequence, kv_head, j));
    double product = dot_ref(q.data(), k, shape.head_size), v_scale = 1;
    if constexpr (kHasScale<T>) {
      product *= double{*sequences.k_scale(query.sequence, kv_head, j)};
      v_scale = double{*sequences.v_scale(query.sequence, kv_head, j)};
    }
    mean.add(logits.logit(product, query.position, j), v, v_scale);
  });
  mean.divide();
}

}  // namespace

SequenceRows attention_rows(const Launch& launch, const AttentionShape& shape) {
  SequenceRows rows(launch.in, kSequence);
  if (shape.beams > 0) rows.follow_beams(launch.in.last(kNumBeamInputs));
  return rows;
}

void attend_ref(const Launch& launch, const AttentionShape& shape, RequestType type) {
  const SequenceRows sequences = attention_rows(launch, shape);
  const Tensor& out = launch.out[0];
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    if (!sequences.is(s, type)) continue;
    const int64_t first = sequences.first_position(s);
    launch.pool().parallel_for(int64_t{sequences.query_length[s]} * shape.heads, [&](int64_t task) {
      const int64_t i = task / shape.heads;
      const Query query{s, sequences.query_start[s] + i, first + i, task % shape.heads};
      std::array<double, kMaxHeadSize> result;
      with_kv_type(sequences.cache->dtype, [&]<typename T>(TypeTag<T>) {
        attend<T>(launch, shape, sequences, query, result.data());
      });
      const int64_t at = (query.row * shape.heads + query.head) * shape.v_head_size;
      for (int d = 0; d < shape.v_head_size; ++d)
        store_float(out.data, out.dtype, at + d,
                    static_cast<float>(result[static_cast<size_t>(d)]));
    });
  }
}

double attention_exact(const Launch& launch, const AttentionShape& shape, RequestType type,
                       int64_t index) {
  const SequenceRows sequences = attention_rows(launch, shape);
  const int64_t head = index / shape.v_head_size % shape.heads;
  const int64_t row = index / shape.v_head_size / shape.heads;
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    const int64_t i = row - sequences.query_start[s];
    if (i < 0 || i >= sequences.query_length[s] || !sequences.is(s, type)) continue;
    std::array<double, kMaxHeadSize> result;
    with_kv_type(sequences.cache->dtype, [&]<typename T>(TypeTag<T>) {
      attend<T>(launch, shape, sequences, {s, row, sequences.first_position(s) + i, head},
                result.data());
    });
    return result[static_cast<size_t>(index % shape.v_head_size)];
  }
  return NAN;
}

void check_logits(std::span<const ir::TensorType> in, const AttentionShape& shape) {
  const auto check_size = [](const char* name, float value) {
    if (!(value >= 0) || !std::isfinite(value)) {
      throw_bad_input(str(name, " must not be negative, got ", value));
    }
  };
  check_size("softcap", shape.softcap);
  check_size("alibi_max_bias", shape.alibi_max_bias);
  if (shape.alibi_bf16 && shape.alibi_max_bias == 0) {
    throw_bad_input("alibi_bf16 needs alibi_max_bias");
  }
  if (shape.relative_buckets < 0) throw_bad_input("relative_buckets must not be negative");
  if (shape.relative_buckets > 0) {
    const char* why_not = shape.buckets().why_not();
    if (*why_not != '\0') throw_bad_input(str("relative bias: ", why_not));
    const ir::TensorType& table = in[in.size() - 1 - shape.beam_inputs()];
    if (!is_kernel_float(table.dtype) ||
        table.shape != ir::Shape{int64_t{shape.relative_buckets}, int64_t{shape.heads}}) {
      throw_bad_input(str("relative_bias must be f32, bf16 or f16 of shape [",
                          shape.relative_buckets, ", ", shape.heads, "], got ",
                          ir::to_string(table)));
    }
  }
  if (shape.sink_logits) {
    check_vector(in[in.size() - shape.extra_inputs()], shape.heads, "sink_logits");
  }
  if (shape.beams > 0) check_beam_inputs(in);
}

void check_attention(std::span<const ir::TensorType> in, const AttentionShape& shape,
                     size_t fixed_inputs) {
  check_heads(shape.heads, shape.kv_heads, shape.head_size, shape.v_head_size);
  if (!(shape.scale > 0) || !std::isfinite(shape.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", shape.scale));
  }
  if (shape.window < 0 || shape.sink_tokens < 0) {
    throw_bad_input("window and sink_tokens must not be negative");
  }
  check_sequence_inputs(in, kSequence);
  check_rows(in[kQ], int64_t{shape.heads} * shape.head_size, "q");
  const size_t expected = fixed_inputs + shape.extra_inputs();
  if (in.size() != expected)
    throw_bad_input(str("expected ", expected, " inputs, got ", in.size()));
  check_logits(in, shape);
}

Cost attention_cost(const Launch& launch, const AttentionShape& shape, RequestType type) {
  const VisibleKeys keys = count_visible_keys(launch, type, shape.window, shape.sink_tokens);
  const auto* cache = launch.in[kCache].as<KvCacheView>();
  const ir::DType stored = cache != nullptr ? cache->dtype : launch.in[kQ].dtype;
  const auto key_bytes = static_cast<double>(kv_vector_bytes(stored, shape.head_size) +
                                             kv_vector_bytes(stored, shape.v_head_size));
  const double width = shape.head_size + shape.v_head_size;
  Cost cost;
  cost.flops = 2 * keys.per_row * shape.heads * width;
  cost.bytes = keys.read * shape.kv_heads * key_bytes +
               keys.rows * shape.heads *
                   (shape.head_size * static_cast<double>(ir::dtype_size(launch.in[kQ].dtype)) +
                    shape.v_head_size * static_cast<double>(ir::dtype_size(launch.out[0].dtype)));
  return cost;
}

}  // namespace millrace::ops
