// Attention over all keys on a GPU, for any head size and type: a block per row and head, keys in
// tiles of a block's threads. For .cu files.
#pragma once

#include "ops/common/attention_cuda.cuh"
#include "ops/common/full_attention.h"
#include "ops/common/relative_position.h"
#include "ops/common/row_owner_cuda.cuh"

namespace millrace::ops {

inline constexpr int kFullThreads = 128;

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

/// The keys of one head of one sequence. T: their type.
template <typename T>
struct FullKeys {
  const FullArgs& a;
  int sequence, kv_head;

  const __device__ T* k(int64_t j) const {
    if (a.k_rows != nullptr) {
      return static_cast<const T*>(a.k_rows) + (a.query_start[sequence] + j) * a.k_stride +
             kv_head * a.head_size;
    }
    return reinterpret_cast<const T*>(a.k_pool + block(j)) + slot(j) * a.head_size;
  }
  const __device__ T* v(int64_t j) const {
    if (a.k_rows != nullptr) {
      return static_cast<const T*>(a.v_rows) + (a.query_start[sequence] + j) * a.v_stride +
             kv_head * a.v_head_size;
    }
    return reinterpret_cast<const T*>(a.v_pool + block(j)) + slot(j) * a.v_head_size;
  }

 private:
  __device__ int64_t block(int64_t j) const {
    return a.blocks[sequence * a.blocks_per_sequence + j / a.tokens_per_block] * a.block_bytes;
  }
  __device__ int64_t slot(int64_t j) const {
    return int64_t{kv_head} * a.tokens_per_block + j % a.tokens_per_block;
  }
};

/// Largest of all threads' values, in every thread.
__device__ inline float block_max(float x, float* scratch) {
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  float top = scratch[0];
  for (unsigned i = 1; i < blockDim.x / kWarp; ++i)
    top = fmaxf(top, scratch[i]);
  return top;
}

template <typename T>
__global__ void __launch_bounds__(kFullThreads) full_attention_kernel(FullArgs a) {
  extern __shared__ float shared[];
  __shared__ float scratch[kWarp], p[kFullThreads];
  __shared__ int owner;
  float* q = shared;              // [head_size]
  float* sums = q + a.head_size;  // [v_head_size]
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  const int s = find_owner(a.query_start, a.query_length, a.sequences, row, &owner);
  if (s < 0) return;
  const int64_t i = row - a.query_start[s];
  const int64_t count = a.key_counts != nullptr ? a.key_counts[s] : a.query_length[s];
  const FullKeys<T> keys{a, s, head / a.group};
  for (int d = thread; d < a.head_size; d += kFullThreads)
    q[d] = load_element(a.q, a.type, (row * a.heads + head) * a.head_size + d);
  for (int d = thread; d < a.v_head_size; d += kFullThreads)
    sums[d] = 0;
  __syncthreads();

  float largest = -INFINITY, total = 0;
  for (int64_t first = 0; first < count; first += kFullThreads) {
    const int n = static_cast<int>(min(int64_t{kFullThreads}, count - first));
    float logit = -INFINITY;
    if (thread < n) {
      const T* k = keys.k(first + thread);
      float dot = 0;
      for (int d = 0; d < a.head_size; ++d)
        dot = fmaf(q[d], to_float(k[d]), dot);
      logit = a.scale * dot;
      if (a.bias != nullptr) {
        logit += load_element(a.bias, a.bias_type,
                              int64_t{a.buckets(first + thread - i)} * a.heads + head);
      }
    }
    const float top = fmaxf(largest, block_max(logit, scratch));
    const float correction = expf(largest - top);
    largest = top;
    p[thread] = thread < n ? expf(logit - top) : 0;
    total = total * correction + block_sum(p[thread], scratch);  // its barriers publish p
    for (int d = thread; d < a.v_head_size; d += kFullThreads) {
      float sum = sums[d] * correction;
      for (int j = 0; j < n; ++j)
        sum = fmaf(p[j], to_float(keys.v(first + j)[d]), sum);
      sums[d] = sum;
    }
  }
  for (int d = thread; d < a.v_head_size; d += kFullThreads)
    store_element(a.out, a.type, (row * a.heads + head) * a.v_head_size + d, sums[d] / total);
}

/// The arguments but for the keys.
inline FullArgs full_args(const Launch& launch, const FullAttention& shape, const Tensor& start,
                          const Tensor& length) {
  FullArgs a{};
  a.q = launch.in[0].data;
  a.out = launch.out[0].data;
  a.type = launch.in[0].dtype;
  a.query_start = start.as<int32_t>();
  a.query_length = length.as<int32_t>();
  a.sequences = static_cast<int>(start.dim(0));
  a.heads = shape.heads;
  a.group = shape.group();
  a.head_size = shape.head_size;
  a.v_head_size = shape.v_head_size;
  a.scale = shape.scale;
  return a;
}

/// `keys`: their type.
inline void launch_full_attention(const char* name, const Launch& launch, const FullArgs& args,
                                  ir::DType keys) {
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  const size_t bytes = sizeof(float) * static_cast<size_t>(args.head_size + args.v_head_size);
  with_float_type(keys, [&]<typename T>(T) {
    device::launch_kernel(name, *launch.queue,
                          dim3(static_cast<unsigned>(rows), static_cast<unsigned>(args.heads)),
                          dim3(kFullThreads), bytes, full_attention_kernel<T>, args);
  });
}

}  // namespace millrace::ops
