#include "base/thread_pool.h"
#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/common/full_attention_ref.h"

namespace millrace::ops {
namespace {

/// One query of one sequence.
void attend(const Launch& launch, int64_t sequence, int64_t row, int64_t head, HeadSums& out) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionCross>());
  const auto& cache = *launch.in[kCrossCache].as<KvCacheView>();
  with_float_type(cache.dtype, [&]<typename T>(TypeTag<T>) {
    const BlockKeys<T> keys(cache, cross_blocks(launch, cache, sequence), head / shape.group());
    attend_all_ref(
        launch.in[kCrossQ], row, head, shape, keys,
        launch.in[kCrossLengths].as<int32_t>()[sequence], [](int64_t) { return 0.0; }, out);
  });
}

}  // namespace

void attention_cross_ref(const Launch& launch) {
  const auto& a = launch.attrs<AttentionCross>();
  const OwnedRows rows(launch.in[kCrossStart], launch.in[kCrossLength]);
  const RowTiles tiles(rows, a.heads, 1);
  launch.pool().parallel_for(tiles.count(), [&](int64_t task) {
    const RowTile tile = tiles.at(task);
    const int64_t row = rows.query_start[tile.sequence] + tile.first;
    HeadSums result;
    attend(launch, tile.sequence, row, tile.head, result);
    const int64_t at = (row * a.heads + tile.head) * a.v_head_size;
    for (int d = 0; d < a.v_head_size; ++d) {
      store_float(launch.out[0].data, launch.out[0].dtype, at + d,
                  static_cast<float>(result[static_cast<size_t>(d)]));
    }
  });
}

double attention_cross_exact(const Launch& launch, int64_t index) {
  const auto& a = launch.attrs<AttentionCross>();
  const OwnedRows rows(launch.in[kCrossStart], launch.in[kCrossLength]);
  const int64_t row = index / a.v_head_size / a.heads;
  const int64_t sequence = rows.owner(row);
  if (sequence < 0) return NAN;
  HeadSums result;
  attend(launch, sequence, row, index / a.v_head_size % a.heads, result);
  return result[static_cast<size_t>(index % a.v_head_size)];
}

}  // namespace millrace::ops
