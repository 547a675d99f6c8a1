// Generated tokens on tensor cores, for bf16 or f16 queries and a cache of the same type, of int8
// or of fp8: one launch reads every key once, however sequences differ in length, and joins what it
// has split. Logits, weights and sums are fp32; weights are rounded to the cache's type, or to
// halves, for their product with the values.
#include <algorithm>
#include <bit>

#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/common/queue_number_cuda.h"

namespace millrace::ops {
namespace {

using generation::Kind;
using generation::kMaxPieces;
using generation::kMaxSequences;
using generation::kMultiprocessors;
using generation::partial_rows;
using generation::Sizes;
using generation::Work;

/// Calls `function(Sizes<...>{})` with the sizes of the kernel to be used where `kind` is wanted;
/// false when there is none for these heads.
template <typename F>
bool with_sizes(int head_size, Kind kind, const F& function) {
  const auto choose = [&]<int kSize>() {
    if (kind == Kind::kNarrow) {
      function(Sizes<kSize, 1>{});
    } else {
      function(Sizes<kSize, 2>{});
    }
    return true;
  };
  switch (head_size) {
    case 64:
      return choose.template operator()<64>();
    case 80:
      function(Sizes<80, 1>{});
      return true;
    case 96:
      function(Sizes<96, 1>{});
      return true;
    case 128:
      return choose.template operator()<128>();
    case 256:
      function(Sizes<256, 1>{});
      return true;
    default:
      return false;
  }
}

/// The sizes of a launch alone decide, and results are the same bits.
Kind choose_kind(const Launch& launch, const AttentionShape& shape, int first, int sequences) {
  // Steps with context sequences say nothing about the tokens of others: one is usual.
  const int64_t rows = first > 0 ? sequences : launch.in[0].dim(0);
  const int64_t unit_rows = (rows + sequences - 1) / sequences * shape.group();
  return unit_rows > 8 ? Kind::kWide : Kind::kNarrow;
}

/// Pieces of a sequence, so that one alone gives each multiprocessor of a large GPU a block, and
/// two if it is long.
int usual_pieces(const AttentionGeneration& a) {
  return std::clamp((kMultiprocessors + a.kv_heads / 2) / a.kv_heads, 1, kMaxPieces);
}
int pieces_if_long(const AttentionGeneration& a) {
  return std::clamp(2 * kMultiprocessors / a.kv_heads, 1, kMaxPieces);
}
int most_pieces(const AttentionGeneration& a) {
  return a.splits > 0 ? a.splits : std::max(usual_pieces(a), pieces_if_long(a));
}

/// What is known only when there is memory; else the other tactic does it.
bool fits(const Launch& launch, const SequenceRows& rows) {
  const KvCacheView& cache = *rows.cache;
  const bool type_fits = ir::dtype_size(cache.dtype) == 1 ? generation::can_widen(cache.k_size)
                                                          : cache.dtype == launch.in[0].dtype;
  const bool tiles_fit = rows.blocks_per_sequence == 1 ||
                         (cache.tokens_per_block % generation::kTileKeys == 0 &&
                          std::has_single_bit(static_cast<unsigned>(cache.tokens_per_block)));
  return type_fits && tiles_fit && has_packed_keys(cache) &&
         reinterpret_cast<uintptr_t>(launch.in[0].data) % 16 == 0;
}

}  // namespace

std::string attention_generation_mma_cuda_why_not(const Launch& launch, const device::Properties&) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionGeneration>());
  if (launch.in[0].dtype == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (shape.beams > 0) return "does not follow beams";
  if (shape.head_size != shape.v_head_size) return "needs K and V of one size";
  if (!shape.has_plain_logits()) return "knows no soft cap and no position bias";
  if (!with_sizes(shape.head_size, Kind::kNarrow, [](auto) {})) {
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
  for (const Kind kind : {Kind::kNarrow, Kind::kWide}) {  // smaller steps may differ
    with_sizes(a.head_size, kind, [&]<typename S>(S) {
      const int rows = partial_rows(launch, shape.group(), S::kRows);
      constexpr int64_t kSharers =
          int64_t{kMultiprocessors} * S::kBlocks * (S::kHasSolo ? S::kWarps : 1);
      bytes = std::max(bytes, kSharers * most_pieces(a) * S::partial_floats(rows) *
                                  static_cast<int64_t>(sizeof(float)));
    });
  }
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
  work.wanted_pieces = usual_pieces(a);
  work.wanted_pieces_if_long = pieces_if_long(a);
  work.partial_slots = most_pieces(a);
  work.block_shift = rows.blocks_per_sequence == 1
                         ? 30
                         : std::countr_zero(static_cast<unsigned>(args.tokens_per_block));
  work.partials = static_cast<float*>(launch.workspace);
  work.queue = queue_number(*launch.queue);
  const Kind kind = choose_kind(launch, shape, first, sequences);
  const ir::DType stored = rows.cache->dtype;
  if (ir::dtype_size(stored) == 1) {
    generation::launch_widening(launch, args, work, kind, stored);
    return;
  }
  with_sizes(a.head_size, kind, [&]<typename S>(S) {
    constexpr int kSize = S::kHeadSize, kColumns = S::kColumns;
    if (launch.in[0].dtype == ir::DType::kBF16) {
      generation::launch_kernel<__nv_bfloat16, kSize, kColumns, __nv_bfloat16>(launch, args, work);
    } else {
      generation::launch_kernel<__half, kSize, kColumns, __half>(launch, args, work);
    }
  });
}

}  // namespace millrace::ops
