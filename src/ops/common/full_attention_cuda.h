// Attention over all keys on a GPU, for any head size and type: a block, or a cluster of blocks,
// for 16 queries with the same keys, which it takes in tiles of 64.
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
  bool packed;  // keys and values can be read four elements at once; set by the launch
};

/// Of both ops' tactics.
std::string full_attention_why_not(const FullAttention& shape, const device::Properties& device);

/// The arguments but for the keys.
FullArgs full_args(const Launch& launch, const FullAttention& shape, const Tensor& start,
                   const Tensor& length);

/// `name` is the kernel's in messages and traces; no sequence has more than `most_keys` keys.
void launch_full_attention(const char* name, const Launch& launch, FullArgs args,
                           int64_t most_keys);

}  // namespace millrace::ops
