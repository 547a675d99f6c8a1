// attention_cross by vectors of type V.
#pragma once

#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/common/float_types.h"
#include "ops/common/full_attention_simd.h"

namespace millrace::ops {

template <typename V, typename T>
void attention_cross_tile(const Launch& launch, const OwnedRows& rows, const RowTile& tile) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionCross>());
  const auto& cache = *launch.in[kCrossCache].as<KvCacheView>();
  const int64_t q_stride = int64_t{shape.heads} * shape.head_size;
  const int64_t out_stride = int64_t{shape.heads} * shape.v_head_size;
  const int64_t row = rows.query_start[tile.sequence] + tile.first;
  const FullQueries queries{
      .q = launch.in[kCrossQ].as<float>() + row * q_stride + tile.head * shape.head_size,
      .out = launch.out[0].as<float>() + row * out_stride + tile.head * shape.v_head_size,
      .q_stride = q_stride,
      .out_stride = out_stride};
  const BlockKeys<T> keys(cache, cross_blocks(launch, cache, tile.sequence),
                          tile.head / shape.group());
  attend_all<V, T>(shape, queries, tile.rows, keys,
                   launch.in[kCrossLengths].as<int32_t>()[tile.sequence]);
}

template <typename V>
void attention_cross_simd(const Launch& launch) {
  const auto& a = launch.attrs<AttentionCross>();
  const OwnedRows rows(launch.in[kCrossStart], launch.in[kCrossLength]);
  const RowTiles tiles(rows, a.heads, kQueryRows);
  const auto run_tile = [&](const RowTile& tile) {
    with_float_type(launch.in[kCrossCache].as<KvCacheView>()->dtype, [&]<typename T>(TypeTag<T>) {
      attention_cross_tile<V, T>(launch, rows, tile);
    });
  };
  double work = 0;
  for (int64_t s = 0; s < rows.num_sequences; ++s)
    work += double{1} * rows.query_length[s] * launch.in[kCrossLengths].as<int32_t>()[s];
  run_tiles(launch, tiles, work * a.heads * (a.head_size + a.v_head_size), run_tile);
}

}  // namespace millrace::ops
