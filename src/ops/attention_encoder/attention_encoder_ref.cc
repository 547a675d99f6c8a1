#include "ops/attention_encoder/attention_encoder_inputs.h"
#include "ops/common/full_attention_ref.h"

namespace millrace::ops {
namespace {

/// One query after the other, of the rows that `rows` gives to sequences.
class Queries {
 public:
  explicit Queries(const Launch& launch)
      : rows(launch.in[kEncoderStart], launch.in[kEncoderLength]),
        shape(FullAttention::of(launch.attrs<AttentionEncoder>())),
        launch_(launch) {}

  void operator()(int64_t sequence, int64_t i, int64_t head, HeadSums& out) const {
    const auto& a = launch_.attrs<AttentionEncoder>();
    const RelativeBuckets buckets = encoder_buckets(a);
    const int64_t start = rows.query_start[sequence];
    const auto bias = [&](int64_t j) {
      if (a.relative_buckets == 0) return 0.0;
      const Tensor& table = launch_.in[kEncoderBias];
      return double{load_float(table.data, table.dtype, buckets(j - i) * shape.heads + head)};
    };
    with_float_type(launch_.in[kEncoderK].dtype, [&]<typename T>(TypeTag<T>) {
      attend_all_ref(launch_.in[kEncoderQ], start + i, head, shape,
                     encoder_keys<T>(launch_, shape, start, head / shape.group()),
                     rows.query_length[sequence], bias, out);
    });
  }

  const OwnedRows rows;
  const FullAttention shape;

 private:
  const Launch& launch_;
};

}  // namespace

void attention_encoder_ref(const Launch& launch) {
  const Queries queries(launch);
  attend_rows_ref(launch, queries.rows, queries.shape, queries);
}

double attention_encoder_exact(const Launch& launch, int64_t index) {
  const Queries queries(launch);
  return attend_exact(queries.rows, queries.shape, index, queries);
}

}  // namespace millrace::ops
