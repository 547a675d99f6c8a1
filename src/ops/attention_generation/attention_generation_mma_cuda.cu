// Generated tokens on tensor cores, for bf16 or f16 queries and a cache of the same type: one
// launch reads every key once, however sequences differ in length, and joins what it has split.
// Logits, weights and sums are fp32; weights are rounded to the cache's type for their product with
// the values.
#include <algorithm>
#include <array>
#include <bit>
#include <mutex>

#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/attention_generation/generation_kernel_cuda.cuh"

namespace millrace::ops {
namespace {

using generation::kMaxPieces;
using generation::kMultiprocessors;
using generation::Sizes;
using generation::Work;

constexpr int kMaxSequences = 1024;

/// Calls `function(Sizes<...>{})`; false when there is no kernel for the size.
template <typename F>
bool with_sizes(int head_size, int columns, const F& function) {
  const bool is_wide = columns > 8;
  switch (head_size) {
    case 64:
      is_wide ? function(Sizes<64, 2>{}) : function(Sizes<64, 1>{});
      return true;
    case 80:
      function(Sizes<80, 1>{});
      return true;
    case 96:
      function(Sizes<96, 1>{});
      return true;
    case 128:
      is_wide ? function(Sizes<128, 2>{}) : function(Sizes<128, 1>{});
      return true;
    case 256:
      function(Sizes<256, 1>{});
      return true;
    default:
      return false;
  }
}

/// Query rows that share a KV head in a usual sequence of the launch. Others are divided, so this
/// is no promise.
int usual_rows(const Launch& launch, int group, int context_sequences) {
  if (context_sequences > 0) return group;
  const int64_t rows = launch.in[0].dim(0), sequences = launch.in[1].dim(0);
  return static_cast<int>(std::min<int64_t>((rows + sequences - 1) / sequences, 64)) * group;
}

/// Pieces of a unit, at most: so many that one long sequence keeps every multiprocessor busy.
int most_pieces(const AttentionGeneration& a) {
  if (a.splits > 0) return a.splits;
  return std::clamp((kMultiprocessors + a.kv_heads / 2) / a.kv_heads, 1, kMaxPieces);
}

/// Query rows of a partial result; even, so that the next one is aligned.
int partial_rows(const Launch& launch, int group, int unit_rows) {
  const int64_t rows = launch.in[0].dim(0) * group;
  return static_cast<int>(std::min<int64_t>((rows + 1) / 2 * 2, unit_rows));
}

/// The number of a queue, for counters that no other queue uses at the same time. Launches of one
/// queue follow each other.
int number_of(const device::Queue& queue) {
  static std::mutex mutex;
  static std::array<const void*, generation::kQueues> streams;
  static size_t count = 0;
  const std::lock_guard lock(mutex);
  for (size_t i = 0; i < std::min(count, streams.size()); ++i) {
    if (streams[i] == queue.stream) return static_cast<int>(i);
  }
  const size_t place = count++ % streams.size();  // of a queue that is long gone, if not free
  streams[place] = queue.stream;
  return static_cast<int>(place);
}

/// What is known only when there is memory; else the other tactic does it.
bool fits(const Launch& launch, const SequenceRows& rows) {
  const KvCacheView& cache = *rows.cache;
  const bool tiles_fit = rows.blocks_per_sequence == 1 ||
                         (cache.tokens_per_block % generation::kTileKeys == 0 &&
                          std::has_single_bit(static_cast<unsigned>(cache.tokens_per_block)));
  return cache.dtype == launch.in[0].dtype && tiles_fit && has_packed_keys(cache) &&
         reinterpret_cast<uintptr_t>(launch.in[0].data) % 16 == 0;
}

template <typename T, typename S>
void launch_generation(const Launch& launch, const AttentionArgs& args, Work work) {
  constexpr int kMaxShared = S::shared_bytes(kMaxSequences);
  constexpr auto* kKernel = generation::attend_generation<T, S::kHeadSize, S::kColumns>;
  static const bool allowed = device::allow_shared("attend_generation", kKernel, kMaxShared);
  static_cast<void>(allowed);
  work.blocks_per_multiprocessor = S::kBlocks;
  work.partial_rows = partial_rows(launch, args.group, S::kRows);
  device::launch_kernel("attend_generation", *launch.queue, kMultiprocessors * S::kBlocks,
                        generation::kThreads, static_cast<size_t>(S::shared_bytes(work.sequences)),
                        kKernel, args, work);
}

}  // namespace

std::string attention_generation_mma_cuda_why_not(const Launch& launch, const device::Properties&) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionGeneration>());
  if (launch.in[0].dtype == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (shape.head_size != shape.v_head_size) return "needs K and V of one size";
  if (!with_sizes(shape.head_size, 8, [](auto) {})) {
    return "needs heads of 64, 80, 96, 128 or 256";
  }
  if (launch.in[1].dim(0) > kMaxSequences) {
    return str("needs at most ", kMaxSequences, " sequences");
  }
  return "";
}

/// Also enough for the other tactic.
int64_t attention_generation_mma_cuda_workspace(const Launch& launch,
                                                const device::Properties& properties) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const AttentionShape shape = AttentionShape::of(a);
  int64_t bytes = 0;
  // Smaller steps may have more rows in a sequence.
  with_sizes(a.head_size, Sizes<64, 2>::kRows, [&]<typename S>(S) {
    const int rows = partial_rows(launch, shape.group(), S::kRows);
    bytes = int64_t{kMultiprocessors} * S::kBlocks * most_pieces(a) * S::partial_floats(rows) *
            static_cast<int64_t>(sizeof(float));
  });
  return std::max(bytes, attention_generation_cuda_workspace(launch, properties));
}

void attention_generation_mma_cuda(const Launch& launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const AttentionShape shape = AttentionShape::of(a);
  const SequenceRows rows(launch.in, 1);
  if (!fits(launch, rows)) return attention_generation_cuda(launch);
  const int first = count_context_sequences(launch);
  const int sequences = static_cast<int>(rows.num_sequences) - first;
  if (sequences == 0 || launch.in[0].dim(0) == 0) return;
  const AttentionArgs args = attention_args(launch, shape, first);
  Work work{};
  work.sequences = sequences;
  work.splits = a.splits;
  work.wanted_pieces = work.partial_slots = most_pieces(a);
  work.block_shift = rows.blocks_per_sequence == 1
                         ? 30
                         : std::countr_zero(static_cast<unsigned>(args.tokens_per_block));
  work.early = 2;
  work.partials = static_cast<float*>(launch.workspace);
  work.queue = number_of(*launch.queue);
  with_sizes(a.head_size, usual_rows(launch, args.group, first), [&]<typename S>(S) {
    if (launch.in[0].dtype == ir::DType::kF16) {
      launch_generation<__half, S>(launch, args, work);
    } else {
      launch_generation<__nv_bfloat16, S>(launch, args, work);
    }
  });
}

}  // namespace millrace::ops
