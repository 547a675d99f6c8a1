// First each block finds the first continuations of a piece of one beam's row, whose tokens its
// threads hold in registers; then one block for each request joins the pieces.
#include "ops/beam_step/beam_step_work.h"
#include "ops/common/cuda_kernel.cuh"
#include "ops/common/sampling_math.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kOwn = static_cast<int>(BeamStepWork::kPiece) / kThreads;  // tokens of a thread

/// A continuation as a number: one that comes before another is larger. 0: none. NaN is above all.
__device__ uint64_t ranked(float score, int64_t index) {
  const uint32_t key = isnan(score) ? ~0u : ordered_key(score);
  return uint64_t{key} << 32 | ~static_cast<uint32_t>(index);
}

__device__ Continuation unranked(uint64_t r) {
  if (r == 0) return {};
  const auto key = static_cast<uint32_t>(r >> 32);
  return {key == ~0u ? __int_as_float(0x7fc00000) : float_of_key(key),
          static_cast<int32_t>(~static_cast<uint32_t>(r))};
}

/// The largest of the block's numbers, in every thread. `scratch` has kWarps numbers.
__device__ uint64_t block_max(uint64_t x, uint64_t* scratch) {
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, x, step);
    x = other > x ? other : x;
  }
  __syncthreads();  // scratch may still be read by the call before
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w)
    x = scratch[w] > x ? scratch[w] : x;
  return x;
}

/// Grid: (pieces, requests x beams).
__global__ void __launch_bounds__(kThreads)
    search_pieces(const BeamStepIo io, const BeamStepWork work) {
  __shared__ uint64_t scratch[kWarps];
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t task = int64_t{blockIdx.y} * gridDim.x + blockIdx.x;
  const auto b = static_cast<int32_t>(blockIdx.y % io.k);
  const BeamRow beam = read_beam_row(io.beams, blockIdx.y / io.k);
  const float base = io.base(beam, b);
  const float* x = io.x(beam, b);
  uint64_t own[kOwn];
  bool has_nan = false;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int64_t t = blockIdx.x * BeamStepWork::kPiece + i * kThreads + threadIdx.x;
    own[i] = 0;
    if (t >= io.vocab) continue;
    has_nan = has_nan || isnan(x[t]);
    if (!io.ends(beam, static_cast<int32_t>(t))) own[i] = ranked(base + x[t], b * io.vocab + t);
  }
  const int any_nan = __syncthreads_or(has_nan ? 1 : 0);
  if (threadIdx.x == 0) *work.has_nan(task) = any_nan;
  Continuation* found = work.found(task);
  for (int place = 0; place < io.k; ++place) {
    uint64_t best = 0;
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      best = own[i] > best ? own[i] : best;
    best = block_max(best, scratch);
#pragma unroll
    for (int i = 0; i < kOwn; ++i)
      own[i] = own[i] == best ? 0 : own[i];
    if (threadIdx.x == 0) found[place] = unranked(best);
  }
}

/// The largest number below `previous` among those of the threads' shares of [0, count).
template <typename F>
__device__ uint64_t next_of(int64_t count, uint64_t previous, const F& number, uint64_t* scratch) {
  uint64_t best = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    const uint64_t r = number(i);
    if (r < previous && r > best) best = r;
  }
  return block_max(best, scratch);
}

/// Grid: requests.
__global__ void __launch_bounds__(kThreads)
    join_pieces(const BeamStepIo io, const BeamStepWork work) {
  __shared__ uint64_t scratch[kWarps];
  __shared__ uint64_t going_on[kMaxBeams];
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t g = blockIdx.x;
  const BeamRow beam = read_beam_row(io.beams, g);
  const int64_t first_task = g * io.k * work.pieces, tasks = io.k * work.pieces;
  const auto found = [&](int64_t i) {
    const Continuation c = work.found(first_task)[i];
    return c.index < 0 ? 0 : ranked(c.score, c.index);
  };
  const auto first_or_ending = [&](int64_t i) -> uint64_t {
    if (i < io.k) return going_on[i];
    const auto b = static_cast<int32_t>((i - io.k) / beam.end_ids.count);
    const int32_t t = io.lists[beam.end_ids.offset + (i - io.k) % beam.end_ids.count];
    if (t < 0 || t >= io.vocab) return 0;
    return ranked(io.base(beam, b) + io.x(beam, b)[t], b * io.vocab + t);
  };
  bool has_nan = false;
  for (int64_t i = threadIdx.x; i < tasks; i += kThreads)
    has_nan = has_nan || *work.has_nan(first_task + i) != 0;
  const int any_nan = __syncthreads_or(has_nan ? 1 : 0);
  uint64_t previous = ~uint64_t{0};
  for (int32_t place = 0; place < io.k; ++place) {
    previous = next_of(tasks * io.k, previous, found, scratch);
    if (threadIdx.x == 0) going_on[place] = previous;
  }
  __syncthreads();
  const int64_t count = io.k + int64_t{io.k} * beam.end_ids.count;
  float best = -INFINITY;
  previous = ~uint64_t{0};
  for (int32_t place = 0; place < io.k; ++place) {
    previous = next_of(count, previous, first_or_ending, scratch);
    const Continuation c = unranked(previous);
    if (threadIdx.x == 0) io.put(g, io.k + place, c);
    if (place == 0) best = c.score;
  }
  __syncthreads();  // end tokens were looked up with the scores of before
  for (int32_t b = static_cast<int32_t>(threadIdx.x); b < io.k; b += kThreads) {
    const Continuation c = unranked(going_on[b]);
    io.put(g, b, c);
    io.scores[beam.slot + b] = c.score;
  }
  if (threadIdx.x == 0) {
    io.status[g] = any_nan != 0          ? kSamplingNotFinite
                   : !(best > -INFINITY) ? kSamplingNoCandidate
                                         : kSamplingOk;
  }
}

}  // namespace

void beam_step_cuda(const Launch& launch) {
  const BeamStepIo io(launch);
  if (io.requests == 0) return;
  const BeamStepWork work(launch);
  const dim3 pieces(static_cast<unsigned>(work.pieces), static_cast<unsigned>(io.requests * io.k));
  device::launch_kernel("beam_step_cuda", *launch.queue, pieces, dim3(kThreads), 0, search_pieces,
                        io, work);
  device::launch_kernel("beam_step_cuda", *launch.queue, dim3(static_cast<unsigned>(io.requests)),
                        dim3(kThreads), 0, join_pieces, io, work);
}

}  // namespace millrace::ops
