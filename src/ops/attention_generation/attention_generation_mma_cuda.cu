// Generated tokens on tensor cores, for bf16 or f16 queries and a cache of the same type, of int8
// or of fp8: one launch reads every key once, however sequences differ in length, and joins what it
// has split. Logits, weights and sums are fp32; weights are rounded to the cache's type, or to
// halves, for their product with the values.
//
// For few sequences there is a second tactic, attention_generation_cluster_cuda, which differs in
// the kernel alone.
//
// Where the op appends, the kernel rotates queries when it loads them, and takes this step's keys
// and values from the product of Q, K and V. Without a plan among the inputs it makes one first.
#include <algorithm>
#include <array>
#include <bit>

#include "ops/attention_generation/attention_generation.h"
#include "ops/attention_generation/attention_generation_composed.h"
#include "ops/attention_generation/attention_generation_inputs.h"
#include "ops/attention_generation/attention_generation_tactics.h"
#include "ops/attention_generation/generation_cluster_launch_cuda.h"
#include "ops/attention_generation/generation_launch_cuda.cuh"
#include "ops/attention_generation/generation_stream_launch_cuda.h"
#include "ops/common/queue_number_cuda.h"
#include "ops/common/shared_memory.h"

namespace millrace::ops {
namespace {

using generation::Appended;
using generation::Kind;
using generation::kMaxSequences;
using generation::kMultiprocessors;
using generation::most_pieces;
using generation::partial_rows;
using generation::Sizes;
using generation::Work;
using generation::WorkItem;

/// Calls `function(Sizes<...>{})` with the sizes of the kernel to be used where `kind` is wanted.
/// REQUIRES: has_kernel(head_size).
template <typename F>
void with_sizes(int head_size, Kind kind, const F& function) {
  const auto choose = [&]<int kSize>() {
    if constexpr (generation::column_tiles(kSize, Kind::kWide) == 2) {
      if (kind == Kind::kWide) return function(Sizes<kSize, 2>{});
    }
    function(Sizes<kSize, 1>{});
  };
  switch (head_size) {
    case 64:
      return choose.template operator()<64>();
    case 80:
      return choose.template operator()<80>();
    case 96:
      return choose.template operator()<96>();
    case 128:
      return choose.template operator()<128>();
    default:
      return choose.template operator()<256>();
  }
}

bool is_aligned(const void* data, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

/// What is known only when there is memory; else the other tactic does it.
bool fits(const Launch& launch, const SequenceRows& rows) {
  const KvCacheView& cache = *rows.cache;
  const bool type_fits = ir::dtype_size(cache.dtype) == 1 ? generation::can_widen(cache.k_size)
                                                          : cache.dtype == launch.in[0].dtype;
  const bool tiles_fit = rows.blocks_per_sequence == 1 ||
                         (cache.tokens_per_block % generation::kTileKeys == 0 &&
                          std::has_single_bit(static_cast<unsigned>(cache.tokens_per_block)));
  return type_fits && tiles_fit && has_packed_keys(cache) && is_aligned(launch.in[0].data, 16);
}

/// Whether the copy engine can take keys with their values.
bool fits_boxes(const AttentionArgs& args) {
  return args.k < args.v && is_aligned(args.k_scale, 16) && is_aligned(args.v_scale, 16) &&
         args.k_scale <= args.v_scale;
}

/// Whether the kernel can append: it rotates eight neighbours together, so they must be alike.
bool can_append(const Launch& launch, const AttentionGeneration& a, const GenerationInputs& at) {
  const auto fits = [&](int index) {
    return index < 0 || is_aligned(launch.in[static_cast<size_t>(index)].data, sizeof(uint4));
  };
  return a.rotary_dim % (a.interleaved ? 8 : 16) == 0 && fits(at.k) && fits(at.v) &&
         fits(at.angles);
}

Appended appended_of(const Launch& launch, const AttentionGeneration& a, const GenerationInputs& at,
                     const KvCacheView& cache, int64_t* q_stride) {
  Appended out{};
  const int64_t q_size = int64_t{a.heads} * a.head_size;
  const int64_t k_size = int64_t{a.kv_heads} * a.head_size;
  *q_stride = q_size;
  if (!a.append) return out;
  out.is_on = true;
  if (a.packed) {
    const auto* q = launch.in[0].as<std::byte>();
    const int64_t bytes = ir::dtype_size(launch.in[0].dtype);
    out.k = q + q_size * bytes;
    out.v = q + (q_size + k_size) * bytes;
    *q_stride = out.k_stride = out.v_stride = q_size + 2 * k_size;
  } else {
    out.k = launch.in[static_cast<size_t>(at.k)].data;
    out.v = launch.in[static_cast<size_t>(at.v)].data;
    out.k_stride = out.v_stride = k_size;
  }
  out.k_plane = cache.pool + cache.k_offset;
  out.v_plane = cache.pool + cache.v_offset;
  out.k_scale = cache.pool + cache.k_scale_offset;
  out.v_scale = cache.pool + cache.v_scale_offset;
  if (at.angles >= 0) out.angles = launch.in[static_cast<size_t>(at.angles)].as<float>();
  out.rotary_dim = a.rotary_dim;
  out.interleaved = a.interleaved;
  return out;
}

/// Bytes of what warps store for each other.
int64_t partial_bytes(const Launch& launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  int64_t bytes = 0;
  for (const Kind kind : {Kind::kNarrow, Kind::kWide}) {  // smaller steps may differ
    with_sizes(a.head_size, kind, [&]<typename S>(S) {
      const int rows = partial_rows(launch, a.heads / a.kv_heads, S::kRows);
      constexpr int64_t kSharers = int64_t{kMultiprocessors} * S::kBlocks;
      bytes = std::max(bytes, kSharers * most_pieces(a.kv_heads, a.splits) *
                                  S::partial_floats(rows) * static_cast<int64_t>(sizeof(float)));
    });
  }
  return bytes;
}

/// Shared memory of the largest of the kernels for these heads.
int64_t shared_bytes(int head_size) {
  int64_t bytes = 0;
  for (const Kind kind : {Kind::kNarrow, Kind::kWide}) {
    with_sizes(head_size, kind, [&]<typename S>(S) {
      using Widening = Sizes<S::kHeadSize, S::kColumns, 1>;
      constexpr int kDynamic =
          std::max(S::shared_bytes(S::kRows), Widening::shared_bytes(S::kRows));
      constexpr int kStatic = sizeof(generation::Exchange<S::kRows, S::kWarps>);
      bytes = std::max<int64_t>(bytes, kDynamic + kStatic);
    });
  }
  return bytes;
}

int64_t plan_bytes(const AttentionGeneration& a) {
  return int64_t{generation::plan_items(a.head_size)} * static_cast<int64_t>(sizeof(WorkItem));
}

/// The plan among the inputs, or one that is made here and now, at the beginning of the workspace.
const WorkItem* plan_of(const Launch& launch, const GenerationInputs& at) {
  if (at.plan >= 0) {
    const Tensor& plan = launch.in[static_cast<size_t>(at.plan)];
    if (is_aligned(plan.data, sizeof(uint4))) return plan.as<WorkItem>();
  }
  const auto& a = launch.attrs<AttentionGeneration>();
  ir::Attrs attrs;
  attrs.set("heads", int64_t{a.heads});
  attrs.set("kv_heads", int64_t{a.kv_heads});
  attrs.set("head_size", int64_t{a.head_size});
  attrs.set("window", int64_t{a.window});
  attrs.set("sink_tokens", int64_t{a.sink_tokens});
  attrs.set("splits", int64_t{a.splits});
  const Op& op = *find_op("attention_plan");
  const auto attributes = op.parse_attrs(attrs);
  const auto sequence = launch.in.subspan(GenerationInputs::kSequence);
  const std::array<Tensor, 5> in = {launch.in[0], sequence[kSequenceLength], sequence[kQueryStart],
                                    sequence[kQueryLength], sequence[kHostRequestTypes]};
  const std::array<int64_t, 2> shape = {generation::plan_items(a.head_size),
                                        generation::kItemWords};
  const std::array<Tensor, 1> out = {Tensor(launch.workspace, ir::DType::kI32, shape)};
  op.tactics[0].run({.in = in, .out = out, .attributes = attributes.get(), .queue = launch.queue});
  return out[0].as<WorkItem>();
}

/// What the kernels whose blocks stay cannot do; null if nothing.
const char* why_no_streams(const AttentionGeneration& a) {
  if (a.head_size != 64 && a.head_size != 128) return "needs heads of 64 or 128";
  if (!a.append) return "needs an op that appends";
  if (a.rotary_dim != a.head_size || a.interleaved) return "needs halves of whole heads rotated";
  if (a.window > 0) return "knows no window";
  if (!AttentionShape::of(a).has_plain_logits()) return "knows no soft cap and no position bias";
  return nullptr;
}

/// The same of kernels for one token of each sequence.
const char* why_no_token_kernel(const AttentionGeneration& a) {
  if (a.heads / a.kv_heads > 8) return "needs at most 8 query heads that share one";
  return why_no_streams(a);
}

/// By the host's copies of lengths; a captured step stays in its class.
int longest_class(const Launch& launch) {
  const Tensor& past = launch.in[GenerationInputs::kSequence + kHostPastLengths];
  const Tensor& query = launch.in[GenerationInputs::kSequence + kHostQueryLength];
  int longest = 0;
  for (int64_t s = 0; s < past.dim(0); ++s) {
    const int count = query.as<int32_t>()[s];
    if (count > 0) longest = std::max(longest, length_class(past.as<int32_t>()[s] + count));
  }
  return longest;
}

/// The sequences in generation, which follow those of the context phase.
generation::Lengths lengths_of(const Launch& launch, const SequenceRows& rows) {
  const int first = count_context_sequences(launch);
  return {.sequence_length = rows.sequence_length,
          .query_start = rows.query_start,
          .query_length = rows.query_length,
          .first = first,
          .sequences = static_cast<int>(rows.num_sequences) - first};
}

enum class Kernels { kUsual, kClusters };

void attend(const Launch& launch, const SequenceRows& rows, Kernels kernels) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const AttentionShape shape = AttentionShape::of(a);
  const GenerationInputs at(a);
  Work work{};
  work.lengths = lengths_of(launch, rows);
  if (work.lengths.sequences == 0 || launch.in[0].dim(0) == 0) return;
  const AttentionArgs args = attention_args(launch, shape, work.lengths.first);
  const Kind kind = generation::choose_kind(launch.in[0].dim(0), work.lengths, args.group);
  work.division = generation::division_of(generation::DividedHeads::of(a), kind);
  if (kernels == Kernels::kUsual) work.items = plan_of(launch, at);
  work.appended = appended_of(launch, a, at, *rows.cache, &work.q_stride);
  work.partial_slots = most_pieces(a.kv_heads, a.splits);
  work.block_shift = rows.blocks_per_sequence == 1
                         ? 30
                         : std::countr_zero(static_cast<unsigned>(args.tokens_per_block));
  work.partials =
      reinterpret_cast<float*>(static_cast<std::byte*>(launch.workspace) + plan_bytes(a));
  work.queue = queue_number(*launch.queue);
  if (kernels == Kernels::kClusters) return generation::launch_clusters(launch, args, work);
  const ir::DType stored = rows.cache->dtype;
  if (why_no_streams(a) == nullptr && fits_boxes(args) && generation::has_streams()) {
    if (kind == Kind::kNarrow) {
      return generation::launch_streams(launch, args, work, stored, longest_class(launch) > 0);
    }
    if (stored == launch.in[0].dtype) {
      return generation::launch_wide_streams(launch, args, work);
    }
  }
  if (ir::dtype_size(stored) == 1) {
    generation::launch_widening(launch, args, work, kind);
    return;
  }
  with_sizes(a.head_size, kind, [&]<typename S>(S) {
    constexpr int kSize = S::kHeadSize, kColumns = S::kColumns;
    if constexpr (kSize == 80 || kSize == 96) {  // less usual, and registers suffice
      generation::launch_kernel<void, kSize, kColumns>(launch, args, work);
    } else if (launch.in[0].dtype == ir::DType::kBF16) {
      generation::launch_kernel<__nv_bfloat16, kSize, kColumns>(launch, args, work);
    } else {
      generation::launch_kernel<__half, kSize, kColumns>(launch, args, work);
    }
  });
}

/// Whether blocks in clusters would read slower than others: large clusters find fewer places.
bool is_long(const Launch& launch, int kv_heads) {
  const int64_t sequences = launch.in[GenerationInputs::kSequence + kHostPastLengths].dim(0);
  const int blocks = generation::cluster_size(static_cast<int>(sequences) * kv_heads);
  return longest_class(launch) > (blocks > 2 ? 0 : 1);
}

}  // namespace

std::string attention_generation_mma_cuda_why_not(const Launch& launch,
                                                  const device::Properties& properties) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionGeneration>());
  if (launch.in[0].dtype == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (shape.beams > 0) return "does not follow beams";
  if (shape.head_size != shape.v_head_size) return "needs K and V of one size";
  if (shape.relative_buckets > 0) return "knows no relative bias";
  if (shape.alibi_bf16) return "knows no position bias rounded to bf16";
  if (!generation::has_kernel(shape.head_size)) return "needs heads of 64, 80, 96, 128 or 256";
  if (launch.in[1].dim(0) > kMaxSequences) {
    return str("needs at most ", kMaxSequences, " sequences");
  }
  return why_no_shared(shared_bytes(shape.head_size), properties);
}

/// Also enough for what runs where there is no memory that fits.
int64_t attention_generation_mma_cuda_workspace(const Launch& launch,
                                                const device::Properties& properties) {
  const ComposedGeneration composed(launch);
  const int64_t own = plan_bytes(launch.attrs<AttentionGeneration>()) + partial_bytes(launch);
  return composed.bytes() +
         std::max(own, attention_generation_cuda_workspace(composed.attention(), properties));
}

void attention_generation_mma_cuda(const Launch& launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const SequenceRows rows(launch.in, GenerationInputs::kSequence);
  if (!fits(launch, rows)) return run_composed<attention_generation_cuda>(launch);
  if (a.append && !can_append(launch, a, GenerationInputs(a))) {
    const ComposedGeneration composed(launch);
    composed.append();
    return attend(composed.attention(), rows, Kernels::kUsual);
  }
  attend(launch, rows, Kernels::kUsual);
}

std::string attention_generation_cluster_cuda_why_not(const Launch& launch,
                                                      const device::Properties& properties) {
  const std::string why = attention_generation_mma_cuda_why_not(launch, properties);
  if (!why.empty()) return why;
  const auto& a = launch.attrs<AttentionGeneration>();
  if (properties.sm != 90) return "needs a Hopper GPU (compute capability 9.0)";
  if (const char* reason = why_no_token_kernel(a)) return reason;
  if (a.splits > 0) return "does not cut into pieces";
  const int64_t sequences = launch.in[1].dim(0);
  if (std::max(sequences, launch.in[0].dim(0)) > generation::kFewSequences ||
      generation::cluster_size(static_cast<int>(sequences) * a.kv_heads) == 0) {
    return "is for few sequences";
  }
  return "";
}

void attention_generation_cluster_cuda(const Launch& launch) {
  const auto& a = launch.attrs<AttentionGeneration>();
  const SequenceRows rows(launch.in, GenerationInputs::kSequence);
  const bool has_own_type = rows.cache->dtype == launch.in[0].dtype;
  const bool has_many_rows = generation::choose_kind(launch.in[0].dim(0), lengths_of(launch, rows),
                                                     a.heads / a.kv_heads) == Kind::kWide;
  if (!has_own_type || has_many_rows || is_long(launch, a.kv_heads) || !fits(launch, rows) ||
      !can_append(launch, a, GenerationInputs(a))) {
    return attention_generation_mma_cuda(launch);
  }
  attend(launch, rows, Kernels::kClusters);
}

}  // namespace millrace::ops
