// attention_encoder by vectors of type V. Position bias is laid out by distance first, so that the
// logits of one query read it from consecutive addresses.
#pragma once

#include <algorithm>

#include "ops/attention_encoder/attention_encoder_inputs.h"
#include "ops/common/full_attention_simd.h"
#include "ops/common/scalar_access.h"

namespace millrace::ops {

/// The bias of each distance: [H, 2T - 1], distance j - i at T - 1 + j - i. Of the distances up to
/// the longest sequence.
inline const float* bias_by_distance(const Launch& launch, const OwnedRows& rows) {
  const auto& a = launch.attrs<AttentionEncoder>();
  if (a.relative_buckets == 0) return nullptr;
  const Tensor& table = launch.in[kEncoderBias];
  const RelativeBuckets buckets = encoder_buckets(a);
  const int64_t center = launch.in[kEncoderQ].dim(0) - 1, width = 2 * center + 1;
  const int64_t longest =
      *std::max_element(rows.query_length, rows.query_length + rows.num_sequences) - 1;
  auto* bias = static_cast<float*>(launch.workspace);
  for (int64_t distance = -longest; distance <= longest; ++distance) {
    const int bucket = buckets(distance);
    for (int64_t h = 0; h < a.heads; ++h) {
      bias[h * width + center + distance] =
          load_float(table.data, table.dtype, bucket * a.heads + h);
    }
  }
  return bias;
}

template <typename V>
void attention_encoder_simd(const Launch& launch) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionEncoder>());
  const OwnedRows rows(launch.in[kEncoderStart], launch.in[kEncoderLength]);
  const RowTiles tiles(rows, shape.heads, kQueryRows);
  if (tiles.count() == 0) return;
  const float* bias = bias_by_distance(launch, rows);
  const int64_t center = launch.in[kEncoderQ].dim(0) - 1;
  const int64_t q_stride = int64_t{shape.heads} * shape.head_size;
  const int64_t out_stride = int64_t{shape.heads} * shape.v_head_size;
  const auto run_tile = [&](const RowTile& tile) {
    const int64_t start = rows.query_start[tile.sequence], row = start + tile.first;
    FullQueries queries{
        .q = launch.in[kEncoderQ].as<float>() + row * q_stride + tile.head * shape.head_size,
        .out = launch.out[0].as<float>() + row * out_stride + tile.head * shape.v_head_size,
        .q_stride = q_stride,
        .out_stride = out_stride};
    if (bias != nullptr) {
      queries.bias = bias + tile.head * (2 * center + 1) + center - tile.first;
    }
    attend_all<V, float>(shape, queries, tile.rows,
                         encoder_keys<float>(launch, shape, start, tile.head / shape.group()),
                         rows.query_length[tile.sequence]);
  };
  double work = 0;
  for (int64_t s = 0; s < rows.num_sequences; ++s)
    work += double{1} * rows.query_length[s] * rows.query_length[s];
  run_tiles(launch, tiles, work * static_cast<double>(q_stride + out_stride), run_tile);
}

}  // namespace millrace::ops
