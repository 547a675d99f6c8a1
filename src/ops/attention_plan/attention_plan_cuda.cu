// The plan of a step, once for all layers. Blocks are small, so that they find room beside those of
// the product in front and have the plan ready when it ends: each block looks at all sequences and
// then makes some of the items.
#include "ops/attention_plan/attention_plan_tactics.h"
#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops {
namespace {

using generation::Division;
using generation::kMaxSequences;
using generation::Lengths;
using generation::smaller;
using generation::Totals;
using generation::WorkItem;

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAll = 0xffffffffu;

/// What a block's threads tell each other.
struct Scratch {
  unsigned offsets[kMaxSequences + 1];
  Totals of_warp[kWarps];
};

/// Totals of a thread's sequences, `first` to `last` - 1; offsets[s + 1] counts their tiles only.
__device__ Totals add_sequences(const Division& division, const Lengths& lengths, int first,
                                int last, unsigned* offsets) {
  Totals own{};
  for (int s = first; s < last; ++s) {
    own.add(plan_sequence(division, lengths, s));
    offsets[s + 1] = own.tiles;
  }
  return own;
}

/// Totals of all threads, for each of them; and makes offsets[s + 1] count the tiles of sequences
/// up to and with s.
__device__ Totals add_threads(const Totals& own, int first, int last, Scratch& scratch) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  unsigned before = own.tiles;  // of threads up to and with this one, then without it
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const unsigned below = __shfl_up_sync(kAll, before, step);
    if (lane >= step) before += below;
  }
  before -= own.tiles;
  const Totals of_warp = {
      __reduce_add_sync(kAll, own.tiles),     __reduce_add_sync(kAll, own.units),
      __reduce_add_sync(kAll, own.pieces),    __reduce_max_sync(kAll, own.longest_unit),
      __reduce_max_sync(kAll, own.row_tiles), __reduce_max_sync(kAll, own.most_tokens)};
  if (lane == 0) scratch.of_warp[warp] = of_warp;
  __syncthreads();
  Totals all{};
  for (unsigned w = 0; w < kWarps; ++w) {
    const Totals& some = scratch.of_warp[w];
    if (w < warp) before += some.tiles;
    all.add(some);
  }
  for (int s = first; s < last; ++s)
    scratch.offsets[s + 1] += before;
  if (threadIdx.x == 0) scratch.offsets[0] = 0;
  __syncthreads();
  return all;
}

/// A thread for each item.
///
/// It does not let its successor start: kernels behind it read the plan before they wait for the
/// one in front of them (attention_generation), and so they may begin only when all of this one's
/// writes are there.
__global__ void __launch_bounds__(kThreads)
    attention_plan_kernel(const __grid_constant__ Division division,
                          const __grid_constant__ Lengths lengths, WorkItem* items) {
  __shared__ Scratch scratch;
  const int thread = static_cast<int>(threadIdx.x);
  const int each = (lengths.sequences + kThreads - 1) / kThreads;
  const int first = smaller(thread * each, lengths.sequences);
  const int last = smaller(first + each, lengths.sequences);
  const Totals own = add_sequences(division, lengths, first, last, scratch.offsets);
  const Totals all = add_threads(own, first, last, scratch);
  const int at = static_cast<int>(blockIdx.x) * kThreads + thread;
  WorkItem item =
      make_item(division, lengths, scratch.offsets, sharer_of(division, static_cast<unsigned>(at)));
  item.unit_blocks = has_unit_blocks(division, all) ? 1 : 0;
  item.one_token = all.most_tokens <= 1 ? 1 : 0;
  device::wait_for_predecessor();
  if (at < division.blocks) items[at] = item;
  __threadfence();
}

}  // namespace

void attention_plan_cuda(const Launch& launch) {
  const PlanJob job(launch);
  CHECK(job.lengths.sequences <= kMaxSequences);
  const int blocks = (job.division.blocks + kThreads - 1) / kThreads;
  device::launch_kernel("attention_plan_cuda", *launch.queue, static_cast<unsigned>(blocks),
                        kThreads, 0, attention_plan_kernel, job.division, job.lengths, job.items);
}

}  // namespace millrace::ops
