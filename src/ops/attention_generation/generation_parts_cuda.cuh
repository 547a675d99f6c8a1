// What a launch of attention_generation_mma_cuda adds to the arguments that all attention kernels
// have, and how its warps learn what to do. For .cu files.
#pragma once

#include "ops/common/attention_cuda.cuh"
#include "ops/common/generation_division.h"
#include "ops/common/generation_work.h"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops::generation {

/// Pieces of a unit that are stored, by the sharer where the unit begins. Zeros between launches;
/// launches that overlap use different rows.
static __device__ unsigned arrivals[kNumberedQueues][kMaxSharers];

/// This step's keys and values, where the kernel appends them. Strides are elements from one row to
/// the next.
struct Appended {
  bool is_on;  // else they are in the cache, and q is rotated
  const void* k;
  const void* v;
  int64_t k_stride, v_stride;
  std::byte* k_plane;  // of the cache, in block 0
  std::byte* v_plane;
  std::byte* k_scale;
  std::byte* v_scale;
  const float* angles;  // [T, rotary_dim]: cosines, then sines
  int rotary_dim;
  bool interleaved;
};

struct Work {
  Division division;
  Lengths lengths;
  const WorkItem* items;  // of the blocks that run at once
  int64_t q_stride;       // elements from one row to the next
  Appended appended;
  int block_shift;    // log2 of tokens_per_block; 30 where one block holds a sequence
  int partial_slots;  // of a sharer: as many as a unit may have pieces
  int partial_rows;   // query rows of one of them
  float* partials;    // [sharers, partial_slots] of Sizes::partial_floats()
  int queue;          // whose counters (arrivals) this launch uses
};

/// Starts to bring what will soon be read into the multiprocessor's cache.
__device__ inline void prefetch(const void* at) {
  asm volatile("prefetch.global.L1 [%0];" ::"l"(at) : "memory");
}

/// The item of this block. What the kernel attention_plan_cuda wrote is there as soon as a later
/// kernel of the step begins, since it lets none start early. The block's own unit, and which
/// blocks of the cache it has, are looked up meanwhile: one trip to memory for all.
__device__ inline WorkItem load_item(const AttentionArgs& a, const Work& work) {
  const unsigned sequence = blockIdx.x / static_cast<unsigned>(a.kv_heads);
  if (sequence < static_cast<unsigned>(work.lengths.sequences)) {
    prefetch(a.blocks + (a.first_sequence + sequence) * a.blocks_per_sequence);
  }
  // Not what an earlier step left in the cache of a multiprocessor.
  const int unit_blocks = __ldcg(&work.items->unit_blocks);
  const WorkItem own = unit_item(work.division, work.lengths, blockIdx.x);
  if (unit_blocks != 0) return own;
  WorkItem item{};
  item.sharer = blockIdx.x;
  if (blockIdx.x >= static_cast<unsigned>(work.division.blocks)) return item;
  constexpr int kPacks = static_cast<int>(sizeof(WorkItem) / sizeof(uint4));
  const auto* from = reinterpret_cast<const uint4*>(work.items + blockIdx.x);
  uint4 packs[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i)
    packs[i] = __ldcg(from + i);
  memcpy(&item, packs, sizeof(item));
  return item;
}

}  // namespace millrace::ops::generation
