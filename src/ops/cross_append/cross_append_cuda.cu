#include "ops/common/attention_cuda.cuh"
#include "ops/common/cuda_kernel.cuh"
#include "ops/common/row_owner_cuda.cuh"
#include "ops/cross_append/cross_append_inputs.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;

/// One plane of a row: from [heads, size] to the heads' slots of the cache.
__device__ void store_plane(const void* rows, ir::DType type, int64_t row, int heads, int size,
                            std::byte* block, int tokens_per_block, int64_t slot,
                            ir::DType stored) {
  for (int c = static_cast<int>(threadIdx.x); c < heads * size; c += kThreads) {
    const int64_t at = (int64_t{c / size} * tokens_per_block + slot) * size + c % size;
    store_element(block, stored, at, load_element(rows, type, row * heads * size + c));
  }
}

/// A block of threads stores one row. blocks: [S, blocks_per_sequence].
__global__ void __launch_bounds__(kThreads)
    cross_append_kernel(const void* k, const void* v, ir::DType type, CrossAppend a,
                        const int32_t* query_start, const int32_t* query_length, int sequences,
                        const int32_t* blocks, int64_t blocks_per_sequence, KvCacheView cache) {
  __shared__ int owner;
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t row = blockIdx.x;
  const int s = find_owner(query_start, query_length, sequences, row, &owner);
  if (s < 0) return;
  const int64_t i = row - query_start[s];
  const int64_t block = blocks[s * blocks_per_sequence + i / cache.tokens_per_block];
  const int64_t slot = i % cache.tokens_per_block;
  std::byte* base = cache.pool + block * cache.block_bytes;
  store_plane(k, type, row, a.kv_heads, a.head_size, base + cache.k_offset, cache.tokens_per_block,
              slot, cache.dtype);
  store_plane(v, type, row, a.kv_heads, a.v_head_size, base + cache.v_offset,
              cache.tokens_per_block, slot, cache.dtype);
}

}  // namespace

void cross_append_cuda(const Launch& launch) {
  const Tensor& k = launch.in[kAppendK];
  if (k.dim(0) == 0) return;
  const auto& cache = *launch.in[kAppendCache].as<KvCacheView>();
  const Tensor& table = launch.in[kAppendBlocks];
  const int64_t sequences = table.dim(1), width = table.dim(2);
  device::launch_kernel("cross_append_cuda", *launch.queue, dim3(static_cast<unsigned>(k.dim(0))),
                        dim3(kThreads), 0, cross_append_kernel, k.data, launch.in[kAppendV].data,
                        k.dtype, launch.attrs<CrossAppend>(), launch.in[kAppendStart].as<int32_t>(),
                        launch.in[kAppendLength].as<int32_t>(), static_cast<int>(sequences),
                        table.as<int32_t>() + cache.group * sequences * width, width, cache);
}

}  // namespace millrace::ops
