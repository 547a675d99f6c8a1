// A row has a cluster of blocks, as many as run side by side for all rows: where the row fits their
// shared memory it is kept there. Limits that leave few tokens (top_k, top_p, min_p) are found in
// few walks over the row: a bound is estimated that all tokens of the answer reach, those that
// reach it are listed, and the first block goes on with the list alone. A list that would be too
// long does not matter: then all blocks find the limits over the whole row (choice_cuda.cuh).
#include <array>
#include <bit>

#include "device/cuda/occupancy.h"
#include "ops/sample_token/choice_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kListed = 8192;  // tokens of a list, at most
constexpr int kListedBytes = sizeof(float) + sizeof(int);

const __device__ SamplingRow& row_of(const SampleTokenIo& io, int64_t l) {
  return reinterpret_cast<const SamplingRow*>(io.rows)[l];
}

/// Of the largest logit: what keeps a row from a choice.
__device__ SamplingStatus status_of(uint64_t best, float temperature) {
  if (key_of_ranked(best) == kNanKey) return kSamplingNotFinite;
  const float max = float_of_key(key_of_ranked(best));
  const SamplingStatus status = status_of_max(max);
  return status != kSamplingOk ? status : status_of_max(max / temperature);
}

/// The limits of a row as far as they hold.
struct Limits {
  int top_k;  // 0: none
  float top_p, min_p, typical_p;

  __device__ Limits(const SamplingRow& row, int64_t vocab)
      : top_k(row.top_k < vocab ? row.top_k : 0),
        top_p(row.top_p),
        min_p(row.min_p),
        typical_p(row.typical_p) {}
  /// Whether a histogram finds the first limit: a small top_k is bounded without.
  __device__ bool need_bin() const { return top_k > kRowThreads / 2 || (top_k <= 0 && top_p < 1); }
  /// Whether there are any.
  __device__ bool hold() const { return leave_few() || typical_p < 1; }
  /// Whether they are likely to leave few tokens.
  __device__ bool leave_few() const { return top_k > 0 || top_p < 1 || min_p > 0; }
};

/// Memory of a list, in each block.
struct ListMemory {
  float* values;  // [capacity]
  int* tokens;    // [capacity]
  int capacity;
};

/// Lists the tokens for which keep(s), which keeps what is larger than what it keeps. Returns how
/// many there are; at most `capacity` are in the memory of the first block then, more in none.
template <typename Keep>
__device__ int list_tokens(RowCluster* row, const ListMemory& list, int* listed, const Keep& keep) {
  if (keep(row->largest_of_thread())) {
    bool is_full = false;
    row->for_each([&](float s, int token) {
      if (is_full || !keep(s)) return;
      const int place = atomicAdd(listed, 1);
      is_full = place >= list.capacity;
      if (is_full) return;
      list.values[place] = s;
      list.tokens[place] = token;
    });
  }
  __syncthreads();
  const uint64_t* counts = row->of_blocks(static_cast<uint64_t>(*listed));
  int total = 0;
  for (int r = 0; r < row->blocks(); ++r)
    total += static_cast<int>(counts[r]);
  if (row->blocks() == 1 || total > list.capacity) return total;
  if (row->rank() == 0) {
    int place = static_cast<int>(counts[0]);
    for (int r = 1; r < row->blocks(); ++r) {
      const float* values = row->in_block(list.values, r);
      const int* tokens = row->in_block(list.tokens, r);
      const auto count = static_cast<int>(counts[r]);
      for (int i = static_cast<int>(threadIdx.x); i < count; i += kRowThreads) {
        list.values[place + i] = values[i];
        list.tokens[place + i] = tokens[i];
      }
      place += count;
    }
  }
  row->sync();  // until the first block has what the others listed
  return total;
}

/// Lists what the first limit keeps, and perhaps more. `bin`: where it is, if Limits::need_bin().
__device__ int list_for(const Limits& limits, const Choice<RowCluster>& choice, RowCluster* row,
                        float max, const ListMemory& list, int* listed, const ValueBin& bin) {
  if (limits.need_bin()) {
    return list_tokens(row, list, listed, [&](float s) { return choice.bin_of(s) >= bin.bin; });
  }
  // For min_p the margin is wider than any rounding; beyond 30 tokens weigh nothing.
  const float bound = limits.top_k > 0 ? row->reached_by(limits.top_k)
                                       : max - fminf(30, 0.01F - logf(limits.min_p));
  return list_tokens(row, list, listed, [bound](float s) { return s >= bound; });
}

/// Draws; `bin` is where the first limit is, if Limits::need_bin().
template <typename Row>
__device__ void draw(const SampleTokenIo& io, int64_t l, const Limits& limits, const ValueBin& bin,
                     Choice<Row>* choice) {
  const bool has_bin = limits.need_bin();
  if (limits.top_k > 0) choice->keep_top_k(has_bin ? bin : choice->bin_of_top_k(limits.top_k));
  if (limits.top_p < 1) {
    const bool is_first = has_bin && limits.top_k <= 0;
    choice->keep_top_p(is_first ? bin : choice->bin_of_top_p(limits.top_p));
  }
  if (limits.min_p > 0) choice->keep_min_p(limits.min_p);
  if (limits.typical_p < 1) choice->keep_typical(limits.typical_p);
  const SamplingRow& row = row_of(io, l);
  const int token = choice->draw(row);
  if (token >= 0) io.put(row, l, token, kSamplingOk);
}

/// Grid: a cluster per row. Dynamic shared memory: what `split` keeps, then a list.
__global__ void __launch_bounds__(kRowThreads)
    sample_token_kernel(SampleTokenIo io, RowSplit split, int capacity) {
  extern __shared__ float4 dynamic[];
  __shared__ TokenShared shared;
  device::wait_for_predecessor();
  device::let_successor_start();
  const RowTeam team = row_team();
  const int64_t l = blockIdx.x / team.num_blocks();
  const SamplingRow& row = row_of(io, l);
  const bool is_first = team.block_rank() == 0 && threadIdx.x == 0;
  if (row.slot < 0) {
    if (is_first) io.put(row, l, 0, kSamplingOk);
    return;
  }
  if (threadIdx.x == 0) shared.listed = 0;
  const bool draws = (row.flags & kSamplingDraws) != 0;
  const float temperature = draws ? row.temperature : 1;
  auto* kept = reinterpret_cast<float*>(dynamic);
  RowCluster cluster(split, &shared.row, kept);
  const uint64_t best = cluster.load(io.logits_of(row, l), temperature, draws);
  const SamplingStatus status = status_of(best, temperature);
  if (status != kSamplingOk || !draws) {
    if (is_first) io.put(row, l, token_of_ranked(best), status);
    return;
  }
  const float max = float_of_key(key_of_ranked(best)) / temperature;
  const Limits limits(row, io.vocab);
  Choice<RowCluster> choice(&cluster, &shared, max);
  if (!limits.hold()) {
    const int token = choice.draw_of_all(row);
    if (token >= 0) io.put(row, l, token, kSamplingOk);
    return;
  }
  ValueBin bin;
  if (limits.need_bin()) {
    bin = limits.top_k > 0 ? choice.bin_of_top_k(limits.top_k)
                           : choice.first_bin_of_top_p(limits.top_p);
  }
  if (limits.leave_few()) {
    float* values = kept + split.shared_bytes() / sizeof(float);
    const ListMemory list{values, reinterpret_cast<int*>(values + capacity), capacity};
    const int count = list_for(limits, choice, &cluster, max, list, &shared.listed, bin);
    if (count <= capacity) {
      if (cluster.rank() != 0) return;
      TokenList tokens(&shared.row, list.values, list.tokens, count,
                       static_cast<int>(io.vocab) - 1);
      Choice<TokenList> few(&tokens, &shared, max);
      draw(io, l, limits, bin, &few);
      return;
    }
  }
  draw(io, l, limits, bin, &choice);
}

struct RowLaunch {
  RowLaunch(const SampleTokenIo& io, int blocks)
      : split(io.vocab, blocks),
        capacity(std::min(kListed,
                          (kept_bytes() - static_cast<int>(split.shared_bytes())) / kListedBytes)) {
    split.restrict_to(io.logits);
    split.restrict_to(io.adjusted);
  }
  size_t shared_bytes() const { return split.shared_bytes() + size_t{kListedBytes} * capacity; }

  RowSplit split;
  int capacity;  // of a list
};

int64_t clusters_at_once(unsigned blocks) {
  return device::clusters_at_once("sample_token_cuda", sample_token_kernel,
                                  static_cast<int>(blocks), kRowThreads, kKeptBytes);
}

/// Blocks of a row: as many as let all rows run at once.
unsigned blocks_of_rows(int64_t rows) {
  if (!device::has_clusters()) return 1;
  static constexpr std::array<unsigned, 3> kSizes = {kRowBlocks, kRowBlocks / 2, kRowBlocks / 4};
  static const std::array<int64_t, 3> kAtOnce = {
      clusters_at_once(kSizes[0]), clusters_at_once(kSizes[1]), clusters_at_once(kSizes[2])};
  for (size_t i = 0; i < kSizes.size(); ++i) {
    if (rows <= kAtOnce[i]) return kSizes[i];
  }
  return 1;
}

}  // namespace

void sample_token_cuda(const Launch& launch) {
  const SampleTokenIo io(launch);
  if (io.count == 0) return;
  [[maybe_unused]] static const bool is_allowed =
      device::allow_shared("sample_token_cuda", sample_token_kernel, kKeptBytes);
  const unsigned blocks = blocks_of_rows(io.count);
  const RowLaunch row(io, static_cast<int>(blocks));
  device::launch_clusters("sample_token_cuda", *launch.queue, blocks,
                          dim3(static_cast<unsigned>(io.count) * blocks), dim3(kRowThreads),
                          row.shared_bytes(), sample_token_kernel, io, row.split, row.capacity);
}

}  // namespace millrace::ops
