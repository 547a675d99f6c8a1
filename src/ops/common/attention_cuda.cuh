// What CUDA kernels of attention share: their arguments and addresses of keys in a paged cache. For
// .cu files.
#pragma once

#include "ops/common/attention_ref.h"
#include "ops/common/cuda_kernel.cuh"
#include "ops/common/kv_types.h"
#include "ops/common/sequence_rows.h"

namespace millrace::ops {

__device__ inline float to_float(KvInt8 x) {
  return widen(x);
}
__device__ inline float to_float(KvFp8 x) {
  return widen(x);
}
template <>
__device__ inline KvInt8 from_float<KvInt8>(float x) {  // of 0: others need a scale
  return {static_cast<int8_t>(x)};
}
template <>
__device__ inline KvFp8 from_float<KvFp8>(float x) {
  return to_fp8(x);
}

/// Calls `function` with a value of the C++ type of a cache's elements.
template <typename F>
void with_cache_type(ir::DType dtype, F&& function) {
  if (dtype == ir::DType::kI8) return function(KvInt8{});
  if (dtype == ir::DType::kF8E4M3) return function(KvFp8{});
  with_float_type(dtype, function);
}

/// A launch's tensors and attributes as kernels take them. Lengths and the block table are on the
/// device.
struct AttentionArgs {
  const void* q;  // [T, heads * head_size]
  void* out;      // [T, heads * v_head_size]
  ir::DType type;
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  const int32_t* blocks;           // [S, blocks_per_sequence]
  int64_t blocks_per_sequence;
  const std::byte* k;  // in block 0
  const std::byte* v;
  const std::byte* k_scale;  // of the vectors in block 0; null where the cache has no scales
  const std::byte* v_scale;
  int64_t block_bytes;
  int tokens_per_block;
  int heads, kv_heads, group, head_size, v_head_size;
  float scale;
  int window, sink_tokens;
  int first_sequence;          // block x of the grid is sequence first_sequence + x
  const int32_t* indirection;  // [R, positions] of beams, or null
  const int32_t* slots;        // [S]
  int64_t positions;
  bool plain_logits;  // scale times a product, else see logit_of()
  float softcap, alibi_max_bias;
  bool alibi_bf16;
  RelativeBuckets buckets;
  const void* relative_bias;  // [buckets, heads] or null
  const void* sinks;          // [heads] or null
  ir::DType relative_bias_type, sinks_type;

  __device__ bool has_scales() const { return k_scale != nullptr; }
  __device__ int64_t window_begin(int64_t position) const {
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
  }
  __device__ bool sees(int64_t position, int64_t key) const {
    return key <= position && (window == 0 || key > position - window || key < sink_tokens);
  }
};

/// The arguments of a launch of either attention op: q, the sequence inputs, the cache.
inline AttentionArgs attention_args(const Launch& launch, const AttentionShape& shape,
                                    int first_sequence) {
  const SequenceRows rows = attention_rows(launch, shape);
  const KvCacheView& cache = *rows.cache;
  const bool with_scales = has_scales(cache.dtype);
  AttentionArgs args{.q = launch.in[0].data,
                     .out = launch.out[0].data,
                     .type = launch.in[0].dtype,
                     .sequence_length = rows.sequence_length,
                     .query_start = rows.query_start,
                     .query_length = rows.query_length,
                     .blocks = rows.block_offsets,
                     .blocks_per_sequence = rows.blocks_per_sequence,
                     .k = cache.pool + cache.k_offset,
                     .v = cache.pool + cache.v_offset,
                     .k_scale = with_scales ? cache.pool + cache.k_scale_offset : nullptr,
                     .v_scale = with_scales ? cache.pool + cache.v_scale_offset : nullptr,
                     .block_bytes = cache.block_bytes,
                     .tokens_per_block = cache.tokens_per_block,
                     .heads = shape.heads,
                     .kv_heads = shape.kv_heads,
                     .group = shape.group(),
                     .head_size = shape.head_size,
                     .v_head_size = shape.v_head_size,
                     .scale = shape.scale,
                     .window = shape.window,
                     .sink_tokens = shape.sink_tokens,
                     .first_sequence = first_sequence,
                     .indirection = rows.indirection,
                     .slots = rows.slots,
                     .positions = rows.positions,
                     .plain_logits = shape.has_plain_logits(),
                     .softcap = shape.softcap,
                     .alibi_max_bias = shape.alibi_max_bias,
                     .alibi_bf16 = shape.alibi_bf16,
                     .buckets = shape.buckets(),
                     .relative_bias = nullptr,
                     .sinks = nullptr,
                     .relative_bias_type = ir::DType::kF32,
                     .sinks_type = ir::DType::kF32};
  if (shape.relative_buckets > 0) {
    args.relative_bias = shape.relative_bias_of(launch.in).data;
    args.relative_bias_type = shape.relative_bias_of(launch.in).dtype;
  }
  if (shape.sink_logits) {
    args.sinks = shape.sinks_of(launch.in).data;
    args.sinks_type = shape.sinks_of(launch.in).dtype;
  }
  return args;
}

/// Sequences of the context phase; they come first. Read on the host, which is right also where a
/// launch is captured: captured steps hold generation sequences only, when they are captured and
/// whenever they are replayed, so the count is 0 each time.
inline int count_context_sequences(const Launch& launch) {
  const SequenceRows rows(launch.in, 1);
  int64_t count = 0;
  while (count < rows.num_sequences && rows.is(count, RequestType::kContext))
    ++count;
  return static_cast<int>(count);
}

/// Whether every key and value vector can be read 16 bytes at a time.
inline bool has_packed_keys(const KvCacheView& cache) {
  const int64_t size = ir::dtype_size(cache.dtype);
  const auto first = reinterpret_cast<int64_t>(cache.pool);
  return (first + cache.k_offset) % 16 == 0 && (first + cache.v_offset) % 16 == 0 &&
         cache.block_bytes % 16 == 0 && cache.k_size * size % 16 == 0 &&
         cache.v_size * size % 16 == 0;
}

/// Where the key and the value of a position lie.
struct KeyAddress {
  const std::byte* k;
  const std::byte* v;
};

/// The block in which a sequence finds a position: of a beam, perhaps one of another sequence.
__device__ inline int block_of(const AttentionArgs& a, int sequence, int position) {
  if (a.indirection != nullptr) {
    sequence += a.indirection[a.slots[sequence] * a.positions + position];
  }
  return a.blocks[sequence * a.blocks_per_sequence + position / a.tokens_per_block];
}

__device__ inline KeyAddress key_address(const AttentionArgs& a, int sequence, int kv_head,
                                         int position, int element_bytes) {
  const int block = block_of(a, sequence, position);
  const int64_t slot = int64_t{kv_head} * a.tokens_per_block + position % a.tokens_per_block;
  const int64_t base = block * a.block_bytes;
  return {a.k + base + slot * a.head_size * element_bytes,
          a.v + base + slot * a.v_head_size * element_bytes};
}

/// Where their scales lie.
__device__ inline KeyAddress scale_address(const AttentionArgs& a, int sequence, int kv_head,
                                           int position) {
  const int block = block_of(a, sequence, position);
  const int64_t slot = int64_t{kv_head} * a.tokens_per_block + position % a.tokens_per_block;
  const int64_t at = block * a.block_bytes + slot * static_cast<int64_t>(sizeof(float));
  return {a.k_scale + at, a.v_scale + at};
}

/// Element `index` of a tensor of a type known when the kernel runs only.
__device__ inline float load_element(const void* data, ir::DType type, int64_t index) {
  if (type == ir::DType::kF32) return static_cast<const float*>(data)[index];
  if (type == ir::DType::kBF16) return to_float(static_cast<const __nv_bfloat16*>(data)[index]);
  return to_float(static_cast<const __half*>(data)[index]);
}

/// Soft cap and ALiBi of a head.
__device__ inline HeadLogits head_logits(const AttentionArgs& a, int head) {
  const float slope = a.alibi_max_bias > 0 ? alibi_slope(head, a.heads, a.alibi_max_bias) : 0;
  return {a.scale, a.softcap, slope, a.alibi_bf16};
}

/// The logit of a query and a key behind which it is not, from their product; for any attributes.
__device__ inline float logit_of(const AttentionArgs& a, int head, float product, int position,
                                 int key) {
  const HeadLogits own = head_logits(a, head);
  float logit = own.scaled(product);
  if (a.alibi_max_bias > 0) logit += own.bias<float>(position, key);
  if (a.relative_bias != nullptr) {
    const int64_t bucket = a.buckets(key - position);
    logit += load_element(a.relative_bias, a.relative_bias_type, bucket * a.heads + head);
  }
  return logit;
}

/// The sum of a row's exponentials 2^(logit log2(e) - largest), with that of the head's sink, which
/// has a logit and no key. Infinite where the sink is all there is.
__device__ inline float total_with_sink(const AttentionArgs& a, int head, float largest,
                                        float total) {
  constexpr float kLog2E = 1.44269504F;
  if (a.sinks == nullptr) return total;
  return total + exp2f(load_element(a.sinks, a.sinks_type, head) * kLog2E - largest);
}

__device__ inline void store_element(void* data, ir::DType type, int64_t index, float value) {
  if (type == ir::DType::kF32) {
    static_cast<float*>(data)[index] = value;
  } else if (type == ir::DType::kBF16) {
    static_cast<__nv_bfloat16*>(data)[index] = from_float<__nv_bfloat16>(value);
  } else {
    static_cast<__half*>(data)[index] = from_float<__half>(value);
  }
}

}  // namespace millrace::ops
