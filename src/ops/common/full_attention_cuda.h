// Attention over all keys on a GPU, for any head size and type: a block per row and head, keys in
// tiles of a block's threads.
#pragma once

#include "ops/common/full_attention.h"
#include "ops/common/relative_position.h"

namespace millrace::ops {

/// A launch as the kernel takes it. Lengths, tables and keys are on the device.
struct FullArgs {
  const void* q;  // [T, heads * head_size]
  void* out;      // [T, heads * v_head_size]
  ir::DType type;
  const int32_t* query_start;   // [S]
  const int32_t* query_length;  // [S]
  int sequences;
  int heads, group, head_size, v_head_size;
  float scale;
  ir::DType key_type;  // and that of the values: of floats
  // Keys of a step's own rows: elements from one row to the next. Else null.
  const void *k_rows, *v_rows;
  int64_t k_stride, v_stride;
  const void* bias;  // [buckets, heads] of bias_type, or null
  ir::DType bias_type;
  RelativeBuckets buckets;
  // Keys in blocks.
  const int32_t* key_counts;  // [S]
  const int32_t* blocks;      // [S, blocks_per_sequence]
  int64_t blocks_per_sequence;
  const std::byte *k_pool, *v_pool;  // of the layer, in block 0
  int64_t block_bytes;
  int tokens_per_block;
};

/// The arguments but for the keys.
FullArgs full_args(const Launch& launch, const FullAttention& shape, const Tensor& start,
                   const Tensor& length);

/// `name` is the kernel's in messages and traces.
void launch_full_attention(const char* name, const Launch& launch, const FullArgs& args);

}  // namespace millrace::ops
