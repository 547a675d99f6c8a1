#include <algorithm>
#include <bit>

#include "ops/rope_append/rope_append_elements_cuda.cuh"
#include "ops/rope_append/rope_append_packs_cuda.cuh"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {
namespace {

struct SequenceRange {
  int64_t first, count;
};

/// The sequences that are not left out: those of the context phase come first. Read on the host,
/// which is right also where a launch is captured (count_context_sequences()).
SequenceRange range_of(const RopeAppend& a, const SequenceRows& sequences) {
  SequenceRange range{0, sequences.num_sequences};
  const auto is_out = [&](int64_t s) {
    return is_left_out(a, static_cast<RequestType>(sequences.request_type[s]));
  };
  while (range.count > 0 && is_out(range.first)) {
    ++range.first;
    --range.count;
  }
  while (range.count > 0 && is_out(range.first + range.count - 1))
    --range.count;
  return range;
}

AppendArgs append_args(const Launch& launch) {
  const auto& attributes = launch.attrs<RopeAppend>();
  const RopeAppendInputs at(attributes);
  const QkvRows rows(launch.in, attributes, at);
  const SequenceRows sequences(launch.in, static_cast<size_t>(at.sequence));
  const KvCacheView& cache = *sequences.cache;
  const SequenceRange range = range_of(attributes, sequences);
  AppendArgs a{.q = rows.q,
               .k = rows.k,
               .v = rows.v,
               .q_stride = rows.q_stride,
               .k_stride = rows.k_stride,
               .v_stride = rows.v_stride,
               .q_out = launch.out[0].as<std::byte>(),
               .sequence_length = sequences.sequence_length + range.first,
               .query_start = sequences.query_start + range.first,
               .query_length = sequences.query_length + range.first,
               .blocks = sequences.blocks(range.first),
               .blocks_per_sequence = sequences.blocks_per_sequence,
               .sequences = range.count,
               .k_plane = cache.pool + cache.k_offset,
               .v_plane = cache.pool + cache.v_offset,
               .k_scale = cache.pool + cache.k_scale_offset,
               .v_scale = cache.pool + cache.v_scale_offset,
               .block_bytes = cache.block_bytes,
               .tokens_per_block = cache.tokens_per_block,
               .heads = attributes.heads,
               .kv_heads = attributes.kv_heads,
               .head_size = attributes.head_size,
               .v_head_size = attributes.v_head_size,
               .rotary_dim = attributes.rotary_dim,
               .interleaved = attributes.interleaved,
               .part_of_head = 1.0 / attributes.head_size,
               .eps = static_cast<float>(attributes.qk_norm_eps),
               .norm_offset = static_cast<float>(attributes.qk_norm_offset)};
  const auto input = [&](int index) { return launch.in[static_cast<size_t>(index)]; };
  if (at.angles >= 0) a.angles = input(at.angles).as<float>();
  if (at.q_norm >= 0) {
    a.q_norm = input(at.q_norm).data;
    a.q_norm_type = input(at.q_norm).dtype;
    a.k_norm = input(at.k_norm).data;
    a.k_norm_type = input(at.k_norm).dtype;
  }
  return a;
}

/// Lanes of a head in append_packs: a power of two.
int lanes_of(const AppendArgs& a, int pack) {
  const int units = a.rotary_dim / (2 * pack) + ((a.head_size - a.rotary_dim) / pack + 1) / 2;
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(units)));
}

/// Whether append_packs can do it: heads of one size, packs of `pack` elements divide them and both
/// halves of their rotated part, and lie on their alignment everywhere.
bool can_pack(const AppendArgs& a, int pack, int64_t stored_size) {
  const int64_t bytes = std::min<int64_t>(16, pack * stored_size);  // of a store to the cache
  const auto stores_to = [&](const std::byte* plane) {
    return reinterpret_cast<uintptr_t>(plane) % static_cast<uintptr_t>(bytes) == 0;
  };
  const bool in_step =
      aligned_to_16(a.q, a.k, a.v, a.q_out, a.angles, static_cast<const std::byte*>(a.q_norm),
                    static_cast<const std::byte*>(a.k_norm));
  return a.head_size % pack == 0 && a.v_head_size == a.head_size &&
         a.rotary_dim % (2 * pack) == 0 && lanes_of(a, pack) <= kWarp && in_step &&
         stores_to(a.k_plane) && stores_to(a.v_plane) && a.block_bytes % bytes == 0;
}

/// Parts of the heads for append_packs: as many as it takes to give each multiprocessor some
/// blocks, since a step of few rows waits for memory only, and at most one for each round of the
/// block.
unsigned parts_of(const AppendArgs& a, int64_t rows, int lanes) {
  constexpr int kBlocksEach = 8;  // of a multiprocessor
  const int at_once = kPackThreads / lanes;
  const int64_t wanted = int64_t{kBlocksEach} * device::multiprocessors() / rows;
  const int64_t rounds = (a.all_heads() + at_once - 1) / at_once;
  return static_cast<unsigned>(std::clamp<int64_t>(wanted, 1, rounds));
}

}  // namespace

void rope_append_cuda(const Launch& launch) {
  const int64_t rows = launch.out[0].dim(0);
  const AppendArgs a = append_args(launch);
  if (rows == 0 || a.sequences == 0) return;
  const RopeAppendInputs at(launch.attrs<RopeAppend>());
  const ir::DType stored = launch.in[static_cast<size_t>(at.cache)].as<KvCacheView>()->dtype;
  with_float_type(launch.in[0].dtype, [&]<typename T>(T) {
    with_cache_type(stored, [&]<typename S>(S) {
      const auto blocks = static_cast<unsigned>(rows);
      if (can_pack(a, kPackOf<T>, sizeof(S))) {
        const int lanes = lanes_of(a, kPackOf<T>);
        const auto kernel =
            a.q_norm == nullptr ? append_packs<false, T, S> : append_packs<true, T, S>;
        device::launch_kernel("rope_append_cuda", *launch.queue,
                              dim3(blocks, parts_of(a, rows, lanes)), kPackThreads, 0, kernel, a,
                              lanes);
      } else {
        device::launch_kernel("rope_append_cuda", *launch.queue,
                              dim3(blocks, blocks_for(a.all_heads(), kElementWarps)),
                              kElementThreads, 0, append_elements<T, S>, a);
      }
    });
  });
}

}  // namespace millrace::ops
