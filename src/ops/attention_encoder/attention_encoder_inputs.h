// The inputs of attention_encoder by name, its keys, and its tactics.
#pragma once

#include "ops/attention_encoder/attention_encoder.h"
#include "ops/common/full_attention.h"
#include "ops/common/relative_position.h"

namespace millrace::ops {

enum AttentionEncoderInput { kEncoderQ, kEncoderK, kEncoderV, kEncoderStart, kEncoderLength };
inline constexpr size_t kEncoderBias = kEncoderLength + 1;

inline RelativeBuckets encoder_buckets(const AttentionEncoder& a) {
  return {.buckets = a.relative_buckets,
          .max_distance = a.relative_max_distance,
          .bidirectional = true};
}

/// Keys of the sequence whose rows begin at `start`.
template <typename T>
RowKeys<T> encoder_keys(const Launch& launch, const FullAttention& shape, int64_t start,
                        int64_t kv_head) {
  const int64_t k_stride = int64_t{shape.kv_heads} * shape.head_size;
  const int64_t v_stride = int64_t{shape.kv_heads} * shape.v_head_size;
  return {launch.in[kEncoderK].as<T>() + start * k_stride + kv_head * shape.head_size,
          launch.in[kEncoderV].as<T>() + start * v_stride + kv_head * shape.v_head_size, k_stride,
          v_stride};
}

/// Bytes for the bias of every head and distance, f32 [H, 2T - 1].
int64_t attention_encoder_workspace(const Launch& launch, const device::Properties& properties);

void attention_encoder_ref(const Launch& launch);
void attention_encoder_avx2(const Launch& launch);
void attention_encoder_avx512(const Launch& launch);
std::string attention_encoder_cuda_why_not(const Launch& launch,
                                           const device::Properties& properties);
void attention_encoder_cuda(const Launch& launch);
/// One element of the output before it is rounded; NaN in rows of no sequence.
double attention_encoder_exact(const Launch& launch, int64_t index);

}  // namespace millrace::ops
