#include "ops/common/attention_tables.h"

#include "ops/common/scalar_access.h"

namespace millrace::ops {

int64_t LogitTables::floats(const AttentionShape& shape) {
  const int64_t rows = (shape.sink_logits ? 1 : 0) + (shape.alibi_max_bias > 0 ? 1 : 0) +
                       (shape.relative_buckets > 0 ? shape.relative_max_distance + 1 : 0);
  return rows * shape.heads;
}

LogitTables::LogitTables(const Launch& launch, const AttentionShape& shape, float* memory)
    : shape_(shape),
      sinks_(memory),
      slopes_(sinks_ + (shape.sink_logits ? shape.heads : 0)),
      by_distance_(slopes_ + (shape.alibi_max_bias > 0 ? shape.heads : 0)) {
  for (int head = 0; head < shape.heads; ++head) {
    if (shape.sink_logits) {
      const Tensor& sinks = shape.sinks_of(launch.in);
      sinks_[head] = load_float(sinks.data, sinks.dtype, head);
    }
    if (shape.alibi_max_bias > 0) slopes_[head] = shape.head_logits(head).slope;
  }
  if (shape.relative_buckets == 0) return;
  const Tensor& table = shape.relative_bias_of(launch.in);
  const RelativeBuckets buckets = shape.buckets();
  for (int64_t distance = 0; distance <= shape.relative_max_distance; ++distance) {
    const int64_t row = int64_t{buckets(-distance)} * shape.heads;
    for (int64_t head = 0; head < shape.heads; ++head) {
      by_distance_[distance * shape.heads + head] = load_float(table.data, table.dtype, row + head);
    }
  }
}

}  // namespace millrace::ops
