#include "ops/attention_cross/attention_cross_inputs.h"
#include "ops/common/full_attention_cuda.h"

namespace millrace::ops {

std::string attention_cross_cuda_why_not(const Launch& launch,
                                         const device::Properties& properties) {
  return full_attention_why_not(FullAttention::of(launch.attrs<AttentionCross>()), properties);
}

void attention_cross_cuda(const Launch& launch) {
  const FullAttention shape = FullAttention::of(launch.attrs<AttentionCross>());
  const auto& cache = *launch.in[kCrossCache].as<KvCacheView>();
  FullArgs a = full_args(launch, shape, launch.in[kCrossStart], launch.in[kCrossLength]);
  a.key_type = cache.dtype;
  a.key_counts = launch.in[kCrossLengths].as<int32_t>();
  a.blocks = cross_blocks(launch, cache, 0);
  a.blocks_per_sequence = launch.in[kCrossBlocks].dim(2);
  a.k_pool = cache.pool + cache.k_offset;
  a.v_pool = cache.pool + cache.v_offset;
  a.block_bytes = cache.block_bytes;
  a.tokens_per_block = cache.tokens_per_block;
  launch_full_attention("attention_cross_cuda", launch, a,
                        a.blocks_per_sequence * a.tokens_per_block);
}

}  // namespace millrace::ops
