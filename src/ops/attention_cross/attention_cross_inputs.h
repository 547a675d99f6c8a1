// The inputs of attention_cross by name, and its tactics.
#pragma once

#include "ops/attention_cross/attention_cross.h"
#include "ops/common/full_attention.h"

namespace millrace::ops {

enum AttentionCrossInput {
  kCrossQ,
  kCrossLengths,
  kCrossStart,
  kCrossLength,
  kCrossBlocks,
  kCrossCache,
  kNumCrossInputs,
};

/// Block numbers of a sequence in the cache's group.
inline const int32_t* cross_blocks(const Launch& launch, const KvCacheView& cache,
                                   int64_t sequence) {
  const Tensor& table = launch.in[kCrossBlocks];
  return table.as<int32_t>() + (cache.group * table.dim(1) + sequence) * table.dim(2);
}

void attention_cross_ref(const Launch& launch);
void attention_cross_avx2(const Launch& launch);
void attention_cross_avx512(const Launch& launch);
std::string attention_cross_cuda_why_not(const Launch& launch,
                                         const device::Properties& properties);
void attention_cross_cuda(const Launch& launch);
/// One element of the output before it is rounded; NaN in rows of no sequence.
double attention_cross_exact(const Launch& launch, int64_t index);

}  // namespace millrace::ops
