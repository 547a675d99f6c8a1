// The plan of a step. One block: a few thousand operations, once for all layers.
#include "ops/attention_plan/attention_plan_tactics.h"
#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {
namespace {

using generation::Division;
using generation::kMaxSequences;
using generation::kQuarters;
using generation::Lengths;
using generation::SequencePlan;
using generation::Sharing;
using generation::smaller;
using generation::Totals;
using generation::WorkItem;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
static_assert(kThreads >= kMaxSequences);

/// Sums over the threads before this one and itself; `scratch` [kWarps] is in shared memory.
__device__ unsigned running_sum(unsigned x, unsigned* scratch) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const unsigned below = __shfl_up_sync(0xffffffffu, x, step);
    if (lane >= step) x += below;
  }
  if (lane == kWarp - 1) scratch[warp] = x;
  __syncthreads();
  for (unsigned w = 0; w < warp; ++w)
    x += scratch[w];
  return x;
}

/// A thread for each sequence, then for each item.
///
/// It does not let its successor start: kernels behind it read the plan before they wait for the
/// one in front of them (attention_generation), and so they may begin only when all of this one's
/// writes are there.
__global__ void __launch_bounds__(kThreads)
    attention_plan_kernel(const __grid_constant__ Division division,
                          const __grid_constant__ Lengths lengths, WorkItem* items) {
  __shared__ unsigned offsets[kMaxSequences + 1];
  __shared__ unsigned scratch[kWarps];
  __shared__ Totals totals;
  __shared__ Sharing sharing;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) totals = {};
  __syncthreads();
  unsigned tiles = 0;
  if (thread < lengths.sequences) {
    const SequencePlan plan = plan_sequence(division, lengths, thread);
    const auto units = static_cast<unsigned>(plan.units);
    tiles = units * static_cast<unsigned>(plan.tiles);
    if (units > 0) {
      atomicAdd(&totals.tiles, tiles);
      atomicAdd(&totals.units, units);
      atomicAdd(&totals.pieces, units * static_cast<unsigned>(plan.pieces));
      atomicMax(&totals.longest_piece, smaller(plan.piece_tiles, plan.tiles));
    }
  }
  tiles = running_sum(tiles, scratch);
  if (thread == 0) offsets[0] = 0;
  if (thread < lengths.sequences) offsets[thread + 1] = tiles;
  __syncthreads();
  if (thread == 0)
    sharing = choose_sharing(division, totals);  // divisions of many warps would queue
  __syncthreads();
  device::wait_for_predecessor();
  for (int at = thread; at < division.blocks * kQuarters; at += kThreads) {
    const auto block = static_cast<unsigned>(at / kQuarters);
    const auto warp = static_cast<unsigned>(at % kQuarters);
    items[at] =
        make_item(division, lengths, offsets, sharing, sharer_of(division, sharing, block, warp));
  }
  __threadfence();
}

}  // namespace

void attention_plan_cuda(const Launch& launch) {
  const PlanJob job(launch);
  CHECK(job.lengths.sequences <= kMaxSequences);
  device::launch_kernel("attention_plan_cuda", *launch.queue, 1, kThreads, 0, attention_plan_kernel,
                        job.division, job.lengths, job.items);
}

}  // namespace millrace::ops
