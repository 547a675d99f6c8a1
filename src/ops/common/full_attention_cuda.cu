#include "ops/common/element_types_cuda.cuh"
#include "ops/common/full_attention_cuda.h"
#include "ops/common/row_owner_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// The keys of one head of one sequence, whatever their type.
struct FullKeys {
  const FullArgs& a;
  int sequence, kv_head, element_bytes;

  const __device__ std::byte* k(int j) const {
    if (a.k_rows == nullptr) return in_blocks(a.k_pool, j, a.head_size);
    return in_rows(a.k_rows, j, a.k_stride, a.head_size);
  }
  const __device__ std::byte* v(int j) const {
    if (a.k_rows == nullptr) return in_blocks(a.v_pool, j, a.v_head_size);
    return in_rows(a.v_rows, j, a.v_stride, a.v_head_size);
  }

 private:
  const __device__ std::byte* in_rows(const void* rows, int j, int64_t stride, int size) const {
    const int64_t element = int64_t{a.query_start[sequence] + j} * stride + kv_head * size;
    return static_cast<const std::byte*>(rows) + element * element_bytes;
  }
  const __device__ std::byte* in_blocks(const std::byte* pool, int j, int size) const {
    const int64_t block = a.blocks[sequence * a.blocks_per_sequence + j / a.tokens_per_block];
    const int64_t slot = int64_t{kv_head} * a.tokens_per_block + j % a.tokens_per_block;
    return pool + block * a.block_bytes + slot * size * element_bytes;
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

/// The product of q and a key, for one thread.
template <typename T>
__device__ float product(const float* q, const std::byte* key, int size) {
  const T* k = reinterpret_cast<const T*>(key);
  float dot = 0;
  for (int d = 0; d < size; ++d)
    dot = fmaf(q[d], to_float(k[d]), dot);
  return dot;
}

/// Adds `count` values from `first` on, each times its weight, to what is left of the sums. A
/// thread has every kThreads-th element.
template <typename T>
__device__ void add_values(const FullKeys& keys, int first, int count, const float* weights,
                           float correction, float* sums) {
  for (int d = static_cast<int>(threadIdx.x); d < keys.a.v_head_size; d += kThreads) {
    float sum = sums[d] * correction;
    for (int j = 0; j < count; ++j)
      sum = fmaf(weights[j], to_float(reinterpret_cast<const T*>(keys.v(first + j))[d]), sum);
    sums[d] = sum;
  }
}

__global__ void __launch_bounds__(kThreads) full_attention_kernel(FullArgs a) {
  extern __shared__ float shared[];
  __shared__ float scratch[kWarp], p[kThreads];
  __shared__ int owner;
  float* q = shared;              // [head_size]
  float* sums = q + a.head_size;  // [v_head_size]
  device::let_successor_start();
  device::wait_for_predecessor();
  const auto row = static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y), thread = static_cast<int>(threadIdx.x);
  const int s = find_owner(a.query_start, a.query_length, a.sequences, row, &owner);
  if (s < 0) return;
  const int i = row - a.query_start[s];
  const int count = a.key_counts != nullptr ? a.key_counts[s] : a.query_length[s];
  for (int d = thread; d < a.head_size; d += kThreads)
    q[d] = load_element(a.q, a.type, (int64_t{row} * a.heads + head) * a.head_size + d);
  for (int d = thread; d < a.v_head_size; d += kThreads)
    sums[d] = 0;
  __syncthreads();

  float largest = -INFINITY, total = 0;
  for (int first = 0; first < count; first += kThreads) {
    const int n = min(kThreads, count - first);
    // Read again for each tile: what follows from it need not stay in registers.
    const FullKeys keys{a, owner, head / a.group, a.key_type == ir::DType::kF32 ? 4 : 2};
    float logit = -INFINITY;
    if (thread < n) {
      on_float_type(a.key_type, [&]<typename T>(T) {
        logit = a.scale * product<T>(q, keys.k(first + thread), a.head_size);
      });
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
    on_float_type(a.key_type,
                  [&]<typename T>(T) { add_values<T>(keys, first, n, p, correction, sums); });
  }
  for (int d = thread; d < a.v_head_size; d += kThreads)
    store_element(a.out, a.type, (int64_t{row} * a.heads + head) * a.v_head_size + d,
                  sums[d] / total);
}

}  // namespace

FullArgs full_args(const Launch& launch, const FullAttention& shape, const Tensor& start,
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

void launch_full_attention(const char* name, const Launch& launch, const FullArgs& args) {
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  float_type(args.key_type);  // else the process ends
  const size_t bytes = sizeof(float) * static_cast<size_t>(args.head_size + args.v_head_size);
  device::launch_kernel(name, *launch.queue,
                        dim3(static_cast<unsigned>(rows), static_cast<unsigned>(args.heads)),
                        dim3(kThreads), bytes, full_attention_kernel, args);
}

}  // namespace millrace::ops
