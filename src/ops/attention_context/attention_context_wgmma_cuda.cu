// Prompts on Hopper's tensor cores, keys and values as they lie in the blocks of the cache, by the
// kernel of context_wgmma_cuda.cuh.
#include <algorithm>
#include <bit>
#include <span>

#include "device/cuda/tensor_map.h"
#include "ops/attention_context/attention_context.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/context_wgmma_cuda.cuh"

namespace millrace::ops {
namespace {

using context::ContextArgs;

constexpr int kMinPiece = 8;  // tokens: boxes begin at multiples of 1024 bytes
constexpr int kMaxPack = 16;  // heads of a unit

/// One plane of the cache, [blocks, KV heads, tokens of a block, head size] without gaps in a
/// block. How many blocks there are is not known: as many as fit into the address space of a GPU.
CUtensorMap make_cache_map(const KvCacheView& cache, const std::byte* first, int size, int piece) {
  constexpr int64_t kAddressSpace = int64_t{1} << 40;
  constexpr int64_t kMaxBlocks = int64_t{1} << 30;
  const int64_t blocks =
      std::clamp<int64_t>(kAddressSpace / cache.block_bytes, int64_t{1}, kMaxBlocks);
  const int64_t head_stride = int64_t{cache.tokens_per_block} * size;
  return device::make_tensor_map(first, {size, cache.tokens_per_block, cache.kv_heads, blocks},
                                 {size, head_stride, cache.block_bytes / 2},
                                 {context::kBoxSize, piece, 1, 1}, device::Swizzle::k128Bytes);
}

/// `lengths` are the query lengths of the context sequences, of which there are some with rows.
template <typename T, int kHeadSize>
void launch_size(const Launch& launch, const AttentionShape& shape,
                 std::span<const int32_t> lengths) {
  using P = context::Plan<kHeadSize, kHeadSize, ContextArgs>;
  const KvCacheView& cache = *SequenceRows(launch.in, 1).cache;
  ContextArgs args{.a = attention_args(launch, shape, 0),
                   .sequences = static_cast<int>(lengths.size()),
                   .groups = 1,
                   .pack_shift = 0,
                   .piece = 0};
  while ((2 << args.pack_shift) <= kMaxPack && shape.group() % (2 << args.pack_shift) == 0)
    ++args.pack_shift;
  const int pack = 1 << args.pack_shift;
  const int64_t units = context::cut_units<P>(lengths, shape.heads / pack, args);
  const bool one_block = args.a.blocks_per_sequence == 1;
  args.piece = one_block ? P::kTile : std::min(P::kTile, cache.tokens_per_block);
  const CUtensorMap q =
      device::make_tensor_map(launch.in[0].data, {kHeadSize, shape.heads, launch.in[0].dim(0)},
                              {kHeadSize, int64_t{shape.heads} * kHeadSize},
                              {context::kBoxSize, pack, args.groups * context::kGroupRows / pack},
                              device::Swizzle::k128Bytes);
  const CUtensorMap k = make_cache_map(cache, args.a.k, kHeadSize, args.piece);
  const CUtensorMap v = make_cache_map(cache, args.a.v, kHeadSize, args.piece);
  context::attend_units<T, P>(*launch.queue, units, args, q, k, v);
}

template <typename T>
void launch_type(const Launch& launch, const AttentionShape& shape,
                 std::span<const int32_t> lengths) {
  switch (shape.head_size) {
    case 64:
      return launch_size<T, 64>(launch, shape, lengths);
    case 128:
      return launch_size<T, 128>(launch, shape, lengths);
    case 256:
      return launch_size<T, 256>(launch, shape, lengths);
    default:
      CHECK(false, "no kernel for heads of ", shape.head_size);
  }
}

/// Whether boxes can be copied from the cache as it lies: a box lies in one block.
bool fits(const Launch& launch, const KvCacheView& cache, int64_t blocks_per_sequence) {
  const bool paged = std::has_single_bit(static_cast<unsigned>(cache.tokens_per_block)) &&
                     cache.tokens_per_block >= kMinPiece;
  return launch.in[0].dtype == cache.dtype && (paged || blocks_per_sequence == 1) &&
         has_packed_keys(cache) && reinterpret_cast<uintptr_t>(launch.in[0].data) % 16 == 0;
}

}  // namespace

std::string attention_context_wgmma_why_not(const Launch& launch,
                                            const device::Properties& properties) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionContext>());
  const int size = shape.head_size;
  if (properties.sm != 90) return "needs a Hopper GPU (compute capability 9.0)";
  if (launch.in[0].dtype == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (shape.v_head_size != size || (size != 64 && size != 128 && size != 256)) {
    return "needs heads of 64, 128 or 256, for K and V alike";
  }
  if (!shape.has_plain_logits()) return "knows no soft cap and no position bias";
  return "";
}

// What the cache is like is known only here: other kernels take what these cannot read.
void attention_context_wgmma_cuda(const Launch& launch) {
  const AttentionShape shape = AttentionShape::of(launch.attrs<AttentionContext>());
  const SequenceRows rows(launch.in, 1);
  if (!fits(launch, *rows.cache, rows.blocks_per_sequence)) return attention_context_cuda(launch);
  // Steps with context sequences are never captured, so the grid may follow the host's lengths.
  const std::span<const int32_t> lengths(launch.in[1 + kHostQueryLength].as<int32_t>(),
                                         static_cast<size_t>(count_context_sequences(launch)));
  if (std::ranges::all_of(lengths, [](int32_t length) { return length == 0; })) return;
  if (launch.in[0].dtype == ir::DType::kF16) {
    launch_type<__half>(launch, shape, lengths);
  } else {
    launch_type<__nv_bfloat16>(launch, shape, lengths);
  }
}

}  // namespace millrace::ops
