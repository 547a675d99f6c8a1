// Which launches attention_generation_cluster_cuda takes, and how it divides them.
#pragma once

#include "ops/attention_generation/generation_parts_cuda.cuh"

namespace millrace::ops::generation {

/// Most sequences, and rows, of a launch: a lane looks at one.
inline constexpr int kFewSequences = 16;

/// Blocks of a cluster, at most.
inline constexpr int kMostBlocks = 8;

/// Blocks to a unit. At most one block for each multiprocessor, since one of the kernel before is
/// there as well; fewer of the large clusters, as each needs neighbouring multiprocessors. 0: there
/// are too many units.
constexpr int cluster_size(int units) {
  return units <= 8 ? kMostBlocks : units <= 24 ? 4 : units <= kMultiprocessors / 2 ? 2 : 0;
}

/// REQUIRES: cluster_size() of the launch is not 0; the op appends and rotates whole heads of 64 or
/// 128 elements, which up to 8 query heads share.
void launch_clusters(const Launch& launch, const AttentionArgs& args, const Work& work);

}  // namespace millrace::ops::generation
