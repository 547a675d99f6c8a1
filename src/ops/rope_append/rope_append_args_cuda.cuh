// What the kernels of rope_append read and write. For .cu files.
#pragma once

#include "ops/common/attention_cuda.cuh"
#include "ops/rope_append/rope_append_inputs.h"

namespace millrace::ops {

struct AppendArgs {
  const std::byte* q;
  const std::byte* k;
  const std::byte* v;
  int64_t q_stride, k_stride, v_stride;  // elements from one row to the next
  std::byte* q_out;                      // [T, heads * head_size]
  const float* angles = nullptr;         // [T, rotary_dim] or null
  const void* q_norm = nullptr;          // [head_size] or null
  const void* k_norm = nullptr;
  ir::DType q_norm_type = ir::DType::kF32, k_norm_type = ir::DType::kF32;
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  const int32_t* blocks;           // [S, blocks_per_sequence]
  int64_t blocks_per_sequence, sequences;
  std::byte* k_plane;  // in block 0
  std::byte* v_plane;
  std::byte* k_scale;  // of the vectors in block 0, where the cache has scales
  std::byte* v_scale;
  int64_t block_bytes;
  int tokens_per_block;
  int heads, kv_heads, head_size, v_head_size, rotary_dim;
  bool interleaved;
  double part_of_head;  // of one element: 1 / head_size
  float eps, norm_offset;

  __host__ __device__ int all_heads() const { return heads + 2 * kv_heads; }
};

/// Where a row's K and V go.
struct TokenSlot {
  int sequence = -1;  // that owns the row, or -1
  int token = 0;      // in its block
  int64_t block = 0;
};

/// Of a row of `sequence`.
__device__ inline TokenSlot slot_in(const AppendArgs& a, int sequence, int position) {
  const auto tokens = static_cast<unsigned>(a.tokens_per_block);
  const unsigned block = static_cast<unsigned>(position) / tokens;
  return {sequence, position - static_cast<int>(block * tokens),
          a.blocks[sequence * a.blocks_per_sequence + block]};
}

/// The slot's vector of a K or V head, counted over all vectors of a block's plane.
__device__ inline int64_t vector_in_block(const AppendArgs& a, int head, const TokenSlot& slot) {
  return int64_t{head} * a.tokens_per_block + slot.token;
}

/// x / rms(x): the factor, from the sum of a head's squares.
__device__ inline float norm_factor_of(double squares, const AppendArgs& a) {
  return __fdiv_rn(1.0F, __fsqrt_rn(static_cast<float>(squares * a.part_of_head) + a.eps));
}

}  // namespace millrace::ops
