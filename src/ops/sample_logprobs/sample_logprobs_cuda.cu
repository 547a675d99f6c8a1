// A cluster of blocks per row, which holds the row in its shared memory. The sum of exponentials is
// one of integers (2^-40: its error stays below 2^-24 of the sum), so its order does not matter.
// Each block finds its own best tokens, the first block those of all.
#include "ops/common/sampling_cluster_cuda.cuh"
#include "ops/sample_logprobs/logprobs_io.h"

namespace millrace::ops {
namespace {

struct LogprobsShared {
  RowShared row;
  uint64_t best[kRowBlocks][kMaxCudaBest];  // of each block, best first; in the first block
};

/// Elements from `begin` on of row l's outputs become -1 and `value`. By one block.
__device__ void clear_best(const LogprobsIo& io, int64_t l, int64_t begin, float value) {
  for (int64_t place = begin + threadIdx.x; place < io.k; place += kRowThreads) {
    io.top_ids[l * io.k + place] = -1;
    io.top_logprobs[l * io.k + place] = value;
  }
}

/// A row that nobody wants, or that has no probabilities.
__device__ void clear_row(const LogprobsIo& io, int64_t l, float value) {
  if (blockIdx.x % kRowBlocks != 0) return;
  if (threadIdx.x == 0) io.logprobs[l] = value;
  clear_best(io, l, 0, value);
}

/// The best of the thread's elements that come after `previous`; 0: none.
__device__ uint64_t next_of_thread(const RowCluster& row, uint64_t previous) {
  uint64_t best = 0;
  for (int i = row.lane(); i < row.count(); i += kWarp) {
    const uint64_t r = ranked(row.value(i), row.token(i));
    if (r < previous) best = max(best, r);
  }
  return best;
}

/// Fills shared->best of the first block with each block's `wanted` best; 0 where it has no more.
__device__ void gather_best(RowCluster* row, LogprobsShared* shared, int wanted) {
  uint64_t* best = row->in_block(shared->best[row->rank()], 0);
  uint64_t own = next_of_thread(*row, ~uint64_t{0});
  for (int place = 0; place < wanted; ++place) {
    const uint64_t found = row->largest_of_block(own);
    if (threadIdx.x == 0) best[place] = found;
    if (own == found && found != 0) own = next_of_thread(*row, found);
  }
  row->sync();
}

/// The place of each is the number of better ones.
__device__ void put_best(const LogprobsIo& io, int64_t l, const LogprobsShared& shared, int wanted,
                         double lse) {
  for (int c = static_cast<int>(threadIdx.x); c < kRowBlocks * wanted; c += kRowThreads) {
    const uint64_t own = shared.best[c / wanted][c % wanted];
    if (own == 0) continue;
    int place = 0;
    for (int r = 0; r < kRowBlocks; ++r) {
      for (int i = 0; i < wanted; ++i)
        place += shared.best[r][i] > own ? 1 : 0;
    }
    if (place < wanted) io.put_best(l, place, token_of_ranked(own), lse);
  }
}

/// Grid: kRowBlocks per row.
__global__ void MILLRACE_ROW_CLUSTER __launch_bounds__(kRowThreads)
    sample_logprobs_kernel(LogprobsIo io, RowSplit split) {
  extern __shared__ float4 kept[];
  __shared__ LogprobsShared shared;
  device::wait_for_predecessor();
  device::let_successor_start();
  const int64_t l = blockIdx.x / kRowBlocks;
  if (!io.is_wanted(l)) {
    clear_row(io, l, 0);
    return;
  }
  RowCluster row(split, &shared.row, reinterpret_cast<float*>(kept));
  const uint64_t best = row.load(io.x(l), 1, true);
  const float max = float_of_key(key_of_ranked(best));
  if (key_of_ranked(best) == kNanKey || isinf(max)) {
    clear_row(io, l, __int_as_float(0x7fc00000));
    return;
  }
  const uint64_t units =
      row.sum([&](float value, int) { return weight_units(sampling_exp(value - max)); });
  const auto wanted = static_cast<int>(io.wanted(l));
  if (wanted > 0) gather_best(&row, &shared, wanted);
  if (row.rank() != 0) return;
  const double lse = max + log(ldexp(static_cast<double>(units), -kWeightBits));
  if (threadIdx.x == 0) {
    io.logprobs[l] = 0;
    io.put_target(l, lse);
  }
  put_best(io, l, shared, wanted, lse);
  clear_best(io, l, wanted, 0);
}

}  // namespace

void sample_logprobs_cuda(const Launch& launch) {
  const LogprobsIo io(launch);
  if (io.count == 0) return;
  RowSplit split(io.vocab);
  split.restrict_to(io.logits);
  [[maybe_unused]] static const bool is_allowed =
      device::allow_shared("sample_logprobs_cuda", sample_logprobs_kernel, kKeptBytes);
  device::launch_kernel("sample_logprobs_cuda", *launch.queue,
                        dim3(static_cast<unsigned>(io.count * row_blocks())), dim3(kRowThreads),
                        split.shared_bytes(), sample_logprobs_kernel, io, split);
}

}  // namespace millrace::ops
