// The sinks and position biases of all heads of a launch as floats, for vector kernels of attention
// whose logits are more than scaled products.
#pragma once

#include <algorithm>

#include "ops/common/attention_ref.h"

namespace millrace::ops {

class LogitTables {
 public:
  /// Floats of memory that the tables of these attributes take; often none.
  static int64_t floats(const AttentionShape& shape);

  /// Fills `memory`, which lives as long as this.
  LogitTables(const Launch& launch, const AttentionShape& shape, float* memory);

  float slope(int64_t head) const { return slopes_[head]; }
  /// The logit that takes part in every softmax of the head. REQUIRES: sink_logits.
  float sink(int64_t head) const { return sinks_[head]; }
  /// What is added to a logit. REQUIRES: the key is not behind the query.
  float bias(int64_t head, int64_t position, int64_t key) const {
    float bias = 0;
    if (shape_.alibi_max_bias > 0) {
      bias =
          HeadLogits{shape_.scale, 0, slopes_[head], shape_.alibi_bf16}.bias<float>(position, key);
    }
    if (shape_.relative_buckets > 0) {
      const int64_t distance = std::min<int64_t>(position - key, shape_.relative_max_distance);
      bias += by_distance_[distance * shape_.heads + head];
    }
    return bias;
  }

 private:
  const AttentionShape& shape_;
  float* sinks_;        // [H]
  float* slopes_;       // [H] of ALiBi
  float* by_distance_;  // [relative_max_distance + 1, H]
};

}  // namespace millrace::ops
