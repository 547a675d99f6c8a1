#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/common/full_attention_ref.h"

namespace millrace::ops {
namespace {

/// One query after the other, of the rows that `rows` gives to sequences.
class Queries {
 public:
  explicit Queries(const Launch& launch)
      : rows(launch.in[kCrossStart], launch.in[kCrossLength]),
        shape(FullAttention::of(launch.attrs<AttentionCross>())),
        launch_(launch) {}

  void operator()(int64_t sequence, int64_t i, int64_t head, HeadSums& out) const {
    const auto& cache = *launch_.in[kCrossCache].as<KvCacheView>();
    const int32_t keys = launch_.in[kCrossLengths].as<int32_t>()[sequence];
    const auto no_bias = [](int64_t) { return 0.0; };
    with_float_type(cache.dtype, [&]<typename T>(TypeTag<T>) {
      const BlockKeys<T> blocks(cache, cross_blocks(launch_, cache, sequence),
                                head / shape.group());
      attend_all_ref(launch_.in[kCrossQ], rows.query_start[sequence] + i, head, shape, blocks, keys,
                     no_bias, out);
    });
  }

  const OwnedRows rows;
  const FullAttention shape;

 private:
  const Launch& launch_;
};

}  // namespace

void attention_cross_ref(const Launch& launch) {
  const Queries queries(launch);
  attend_rows_ref(launch, queries.rows, queries.shape, queries);
}

double attention_cross_exact(const Launch& launch, int64_t index) {
  const Queries queries(launch);
  return attend_exact(queries.rows, queries.shape, index, queries);
}

}  // namespace millrace::ops
