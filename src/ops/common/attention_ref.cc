#include "ops/common/attention_ref.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/common/scalar_access.h"

namespace millrace::ops {
namespace {

constexpr size_t kQ = 0, kSequence = 1, kCache = kSequence + kNumSequenceInputs;

/// One query vector of one sequence.
struct Query {
  int64_t sequence, row, position;
};

/// Calls `visit(first, end)` for the runs of positions that a query sees, in order.
template <typename Visit>
void for_each_visible_run(const AttentionShape& shape, int64_t position, const Visit& visit) {
  const int64_t begin = shape.window_begin(position);
  const int64_t sinks = std::min<int64_t>(shape.sink_tokens, begin);
  if (sinks > 0) visit(int64_t{0}, sinks);
  visit(begin, position + 1);
}

class RowAttention {
 public:
  RowAttention(const Launch& launch, const AttentionShape& shape, const SequenceRows& sequences)
      : q_(launch.in[kQ]), out_(launch.out[0]), shape_(shape), sequences_(sequences) {}

  /// softmax(scale q K^T) V of one head.
  void run(const Query& query, int64_t head) const {
    const int64_t kv_head = head / shape_.group();
    std::array<float, kMaxHeadSize> q;
    for (int d = 0; d < shape_.head_size; ++d) {
      q[static_cast<size_t>(d)] =
          load_float(q_.data, q_.dtype, (query.row * shape_.heads + head) * shape_.head_size + d);
    }
    float largest = -INFINITY;
    for_each_visible_run(shape_, query.position, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j)
        largest = std::max(largest, score(query, kv_head, j, q.data()));
    });
    std::array<double, kMaxHeadSize> sums;
    std::fill_n(sums.begin(), shape_.v_head_size, 0.0);
    double total = 0;
    for_each_visible_run(shape_, query.position, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const double p = std::exp(static_cast<double>(score(query, kv_head, j, q.data())) -
                                  static_cast<double>(largest));
        total += p;
        const std::byte* v = sequences_.v(query.sequence, kv_head, j);
        for (int d = 0; d < shape_.v_head_size; ++d) {
          sums[static_cast<size_t>(d)] += p * double{load_float(v, sequences_.cache->dtype, d)};
        }
      }
    });
    for (int d = 0; d < shape_.v_head_size; ++d) {
      store_float(out_.data, out_.dtype, (query.row * shape_.heads + head) * shape_.v_head_size + d,
                  static_cast<float>(sums[static_cast<size_t>(d)] / total));
    }
  }

 private:
  float score(const Query& query, int64_t kv_head, int64_t position, const float* q) const {
    const std::byte* k = sequences_.k(query.sequence, kv_head, position);
    double sum = 0;
    for (int d = 0; d < shape_.head_size; ++d)
      sum += double{q[d]} * double{load_float(k, sequences_.cache->dtype, d)};
    return shape_.scale * static_cast<float>(sum);
  }

  const Tensor& q_;
  const Tensor& out_;
  const AttentionShape& shape_;
  const SequenceRows& sequences_;
};

}  // namespace

void attend_ref(const Launch& launch, const AttentionShape& shape, RequestType type) {
  const SequenceRows sequences(launch.in, kSequence);
  const RowAttention attention(launch, shape, sequences);
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    if (!sequences.is(s, type)) continue;
    const int64_t first = sequences.first_position(s);
    launch.pool().parallel_for(int64_t{sequences.query_length[s]} * shape.heads, [&](int64_t task) {
      const int64_t i = task / shape.heads;
      attention.run({s, sequences.query_start[s] + i, first + i}, task % shape.heads);
    });
  }
}

void check_attention(std::span<const ir::TensorType> in, const AttentionShape& shape) {
  check_heads(shape.heads, shape.kv_heads, shape.head_size, shape.v_head_size);
  if (!(shape.scale > 0) || !std::isfinite(shape.scale)) {
    throw_bad_input(str("scale must be a positive number, got ", shape.scale));
  }
  if (shape.window < 0 || shape.sink_tokens < 0) {
    throw_bad_input("window and sink_tokens must not be negative");
  }
  check_sequence_inputs(in, kSequence);
  check_rows(in[kQ], int64_t{shape.heads} * shape.head_size, "q");
}

Cost attention_cost(const Launch& launch, const AttentionShape& shape, RequestType type) {
  const VisibleKeys keys = count_visible_keys(launch, type, shape.window, shape.sink_tokens);
  const auto* cache = launch.in[kCache].as<KvCacheView>();
  const auto kv_bytes =
      static_cast<double>(ir::dtype_size(cache != nullptr ? cache->dtype : launch.in[kQ].dtype));
  const double width = shape.head_size + shape.v_head_size;
  Cost cost;
  cost.flops = 2 * keys.per_row * shape.heads * width;
  cost.bytes = keys.read * shape.kv_heads * width * kv_bytes +
               keys.rows * shape.heads *
                   (shape.head_size * static_cast<double>(ir::dtype_size(launch.in[kQ].dtype)) +
                    shape.v_head_size * static_cast<double>(ir::dtype_size(launch.out[0].dtype)));
  return cost;
}

}  // namespace millrace::ops
