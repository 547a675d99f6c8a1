#include "base/thread_pool.h"
#include "ops/attention_encoder/attention_encoder_inputs.h"
#include "ops/common/full_attention_ref.h"

namespace millrace::ops {
namespace {

/// One query of one sequence.
void attend(const Launch& launch, const OwnedRows& rows, int64_t sequence, int64_t i, int64_t head,
            HeadSums& out) {
  const auto& a = launch.attrs<AttentionEncoder>();
  const FullAttention shape = FullAttention::of(a);
  const RelativeBuckets buckets = encoder_buckets(a);
  const int64_t start = rows.query_start[sequence];
  const auto bias = [&](int64_t j) {
    if (a.relative_buckets == 0) return 0.0;
    const Tensor& table = launch.in[kEncoderBias];
    return double{load_float(table.data, table.dtype, buckets(j - i) * shape.heads + head)};
  };
  with_float_type(launch.in[kEncoderK].dtype, [&]<typename T>(TypeTag<T>) {
    attend_all_ref(launch.in[kEncoderQ], start + i, head, shape,
                   encoder_keys<T>(launch, shape, start, head / shape.group()),
                   rows.query_length[sequence], bias, out);
  });
}

}  // namespace

void attention_encoder_ref(const Launch& launch) {
  const auto& a = launch.attrs<AttentionEncoder>();
  const OwnedRows rows(launch.in[kEncoderStart], launch.in[kEncoderLength]);
  const RowTiles tiles(rows, a.heads, 1);
  launch.pool().parallel_for(tiles.count(), [&](int64_t task) {
    const RowTile tile = tiles.at(task);
    HeadSums result;
    attend(launch, rows, tile.sequence, tile.first, tile.head, result);
    const int64_t row = rows.query_start[tile.sequence] + tile.first;
    const int64_t at = (row * a.heads + tile.head) * a.v_head_size;
    for (int d = 0; d < a.v_head_size; ++d) {
      store_float(launch.out[0].data, launch.out[0].dtype, at + d,
                  static_cast<float>(result[static_cast<size_t>(d)]));
    }
  });
}

double attention_encoder_exact(const Launch& launch, int64_t index) {
  const auto& a = launch.attrs<AttentionEncoder>();
  const OwnedRows rows(launch.in[kEncoderStart], launch.in[kEncoderLength]);
  const int64_t row = index / a.v_head_size / a.heads;
  const int64_t sequence = rows.owner(row);
  if (sequence < 0) return NAN;
  HeadSums result;
  attend(launch, rows, sequence, row - rows.query_start[sequence], index / a.v_head_size % a.heads,
         result);
  return result[static_cast<size_t>(index % a.v_head_size)];
}

}  // namespace millrace::ops
