// Which launches attention_generation_cluster_cuda takes, and how it divides them.
#pragma once

#include "ops/attention_generation/generation_parts_cuda.cuh"

namespace millrace::ops::generation {

/// Most sequences, and rows, of a launch: a lane looks at one.
inline constexpr int kFewSequences = 16;
/// Blocks that run at once.
inline constexpr int kSharers = kMaxSharers;

/// Blocks to a unit: about one for each multiprocessor, since a block of the kernel before is there
/// as well. 0: there are too many units.
constexpr int cluster_size(int units) {
  for (const int blocks : {8, 4, 2}) {
    if (units * blocks <= kMultiprocessors) return blocks;
  }
  return 0;
}

/// REQUIRES: cluster_size() of the launch is not 0; the op appends and rotates whole heads of 64 or
/// 128 elements, which up to 8 query heads share.
void launch_clusters(const Launch& launch, const AttentionArgs& args, const Work& work);

}  // namespace millrace::ops::generation
