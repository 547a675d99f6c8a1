#include "ops/harness/kv_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/thread_pool.h"
#include "ops/common/kv_types.h"
#include "ops/common/scalar_access.h"

namespace millrace::ops {
namespace {

constexpr int32_t kNoBlock = 2147480000;
constexpr std::byte kUnused{0xff};  // NaN in any type
constexpr int64_t kSpareBlocks = 3, kSpareEntries = 2;
constexpr int64_t kBytesOfOtherLayers = 192;  // in front of, between and behind the planes

uint64_t mix(uint64_t z) {  // the finaliser of SplitMix64 (Steele, Lea, Flood 2014)
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// One element of a cache, without its scale.
float load_kv(const void* data, ir::DType dtype, int64_t i) {
  if (dtype == ir::DType::kI8) return static_cast<const int8_t*>(data)[i];
  if (dtype == ir::DType::kF8E4M3) {
    return ir::f8e4m3_to_float(static_cast<const uint8_t*>(data)[i]);
  }
  return load_float(data, dtype, i);
}

/// To nearest.
void store_kv(void* data, ir::DType dtype, int64_t i, float value) {
  if (dtype == ir::DType::kI8) {
    static_cast<int8_t*>(data)[i] = static_cast<int8_t>(std::lround(value));
  } else if (dtype == ir::DType::kF8E4M3) {
    static_cast<KvFp8*>(data)[i] = to_fp8(value);
  } else {
    store_float(data, dtype, i, value);
  }
}

float rounded(ir::DType dtype, float value) {
  float element = 0;
  store_kv(&element, dtype, 0, value);
  return load_kv(&element, dtype, 0);
}

int64_t div_ceil(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace

float hashed_value(uint64_t seed, uint64_t a, uint64_t b, uint64_t c) {
  const uint64_t bits = mix(mix(mix(mix(seed + 0x9e3779b97f4a7c15u) + a) + b) + c);
  const double uniform = static_cast<double>(bits >> 40) * 0x1p-24;
  return static_cast<float>((uniform - 0.5) * 2 * std::sqrt(3.0));
}

KvCase::KvCase(const KvCaseSpec& spec) : spec_(spec) {
  number_rows();
  lay_out_blocks();
  if (spec_.beams > 0) shuffle_beams();
}

void KvCase::number_rows() {
  for (const KvCaseSequence& s : spec_.sequences) {
    rows_ += spec_.row_gap;
    query_start.push_back(static_cast<int32_t>(rows_));
    query_length.push_back(s.rows);
    past_length.push_back(s.past);
    sequence_length.push_back(s.past + s.rows);
    request_type.push_back(static_cast<int32_t>(s.type));
    rows_ += s.rows;
  }
  rows_ += spec_.row_gap;
}

bool KvCase::is_freed(const KvCaseSequence& s, int64_t block) const {
  const int64_t last = (block + 1) * view.tokens_per_block - 1;
  const int64_t first_visible = int64_t{s.past} + 1 - spec_.freed_before_window;
  const bool has_sink = block * view.tokens_per_block < spec_.sink_tokens;
  return spec_.freed_before_window > 0 && last < first_visible && !has_sink;
}

void KvCase::lay_out_blocks() {
  int64_t longest = 1;
  for (const int32_t length : sequence_length)
    longest = std::max<int64_t>(longest, length);
  const bool paged = spec_.tokens_per_block > 0;
  view.tokens_per_block = paged ? spec_.tokens_per_block : static_cast<int32_t>(longest + 3);
  view.kv_heads = spec_.kv_heads;
  view.k_size = spec_.k_size;
  view.v_size = spec_.v_size;
  view.group = kGroups - 1;
  view.dtype = spec_.dtype;
  const int64_t slots = int64_t{view.tokens_per_block} * spec_.kv_heads;
  view.k_offset = kBytesOfOtherLayers;
  view.v_offset = view.k_offset + kBytesOfOtherLayers +
                  div_ceil(slots * view.k_size * ir::dtype_size(view.dtype), 64) * 64;
  const int64_t v_bytes = div_ceil(slots * view.v_size * ir::dtype_size(view.dtype), 64) * 64;
  view.block_bytes = view.v_offset + v_bytes + kBytesOfOtherLayers;
  if (has_scales(view.dtype)) {
    const int64_t scale_bytes = div_ceil(slots * static_cast<int64_t>(sizeof(float)), 64) * 64;
    view.k_scale_offset = view.block_bytes;
    view.v_scale_offset = view.k_scale_offset + scale_bytes + kBytesOfOtherLayers;
    view.block_bytes = view.v_scale_offset + scale_bytes + kBytesOfOtherLayers;
  }

  const int64_t used = div_ceil(longest, view.tokens_per_block);
  blocks_per_sequence = paged ? used + kSpareEntries : 1;
  num_blocks_ = num_sequences() * used + kSpareBlocks;
  std::vector<int32_t> order(static_cast<size_t>(num_blocks_));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i)
    std::swap(order[i - 1], order[mix(spec_.seed + i) % i]);
  block_offsets.assign(static_cast<size_t>(kGroups * num_sequences() * blocks_per_sequence),
                       kNoBlock);
  auto next = order.begin();
  for (int64_t s = 0; s < num_sequences(); ++s) {
    const auto& sequence = spec_.sequences[static_cast<size_t>(s)];
    const int64_t needed = div_ceil(sequence_length[static_cast<size_t>(s)], view.tokens_per_block);
    const int64_t first = (view.group * num_sequences() + s) * blocks_per_sequence;
    for (int64_t b = 0; b < needed; ++b) {
      if (!is_freed(sequence, b)) block_offsets[static_cast<size_t>(first + b)] = *next++;
    }
  }
}

/// Slots run backwards; behind the past stand numbers of no sequence.
void KvCase::shuffle_beams() {
  const int64_t sequences = num_sequences();
  positions = blocks_per_sequence * view.tokens_per_block;
  indirection.assign(static_cast<size_t>(sequences * positions), kNoBlock);
  int64_t first = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    beam_slots.push_back(static_cast<int32_t>(sequences - 1 - s));
    const auto& sequence = spec_.sequences[static_cast<size_t>(s)];
    if (sequence.type == RequestType::kContext) {
      first = s + 1;
      continue;
    }
    const int64_t request = (s - first) / spec_.beams, beam = (s - first) % spec_.beams;
    for (int64_t position = 0; position < sequence.past + sequence.rows; ++position) {
      const bool is_new = position >= sequence.past;
      const uint64_t turn = is_new ? 0 : mix(static_cast<uint64_t>(request * positions + position));
      const int64_t other = static_cast<int64_t>(
          (static_cast<uint64_t>(beam) + turn % static_cast<uint64_t>(spec_.beams)) %
          static_cast<uint64_t>(spec_.beams));
      indirection[static_cast<size_t>(beam_slots.back() * positions + position)] =
          static_cast<int32_t>(other - beam);
    }
  }
}

int64_t KvCase::holder(int64_t sequence, int64_t position) const {
  const bool is_beam =
      spec_.sequences[static_cast<size_t>(sequence)].type == RequestType::kGeneration;
  if (spec_.beams == 0 || !is_beam) return sequence;
  const int64_t slot = beam_slots[static_cast<size_t>(sequence)];
  return sequence + indirection[static_cast<size_t>(slot * positions + position)];
}

int64_t KvCase::block(int64_t sequence, int64_t position) const {
  const int64_t row = view.group * num_sequences() + holder(sequence, position);
  return block_offsets[static_cast<size_t>(row * blocks_per_sequence +
                                           position / view.tokens_per_block)];
}

int64_t KvCase::slot_offset(KvPlane plane, int64_t sequence, int64_t head, int64_t position) const {
  const int64_t size = plane == KvPlane::kK ? view.k_size : view.v_size;
  const int64_t slot = head * view.tokens_per_block + position % view.tokens_per_block;
  return block(sequence, position) * view.block_bytes +
         (plane == KvPlane::kK ? view.k_offset : view.v_offset) +
         slot * size * ir::dtype_size(view.dtype);
}

int64_t KvCase::scale_offset(KvPlane plane, int64_t sequence, int64_t head,
                             int64_t position) const {
  const int64_t slot = head * view.tokens_per_block + position % view.tokens_per_block;
  return block(sequence, position) * view.block_bytes +
         (plane == KvPlane::kK ? view.k_scale_offset : view.v_scale_offset) +
         slot * static_cast<int64_t>(sizeof(float));
}

// Large caches have hundreds of millions of numbers: all threads draw them.
void KvCase::fill_pool() {
  pool.assign(static_cast<size_t>(num_blocks_ * view.block_bytes), kUnused);
  ThreadPool threads;
  for (int64_t s = 0; s < num_sequences(); ++s) {
    const auto& sequence = spec_.sequences[static_cast<size_t>(s)];
    const int64_t filled = sequence.past + (spec_.has_new_tokens ? sequence.rows : 0);
    threads.parallel_for(filled, [&](int64_t position) {
      if (is_freed(sequence, position / view.tokens_per_block)) return;
      for (int64_t head = 0; head < spec_.kv_heads; ++head) {
        fill_slot(KvPlane::kK, s, head, position);
        fill_slot(KvPlane::kV, s, head, position);
      }
    });
  }
}

void KvCase::fill_slot(KvPlane plane, int64_t sequence, int64_t head, int64_t position) {
  std::byte* slot = pool.data() + slot_offset(plane, sequence, head, position);
  const int64_t size = plane == KvPlane::kK ? view.k_size : view.v_size;
  for (int64_t d = 0; d < size; ++d)
    store_kv(slot, view.dtype, d, element(plane, sequence, head, position, d));
  if (!has_scales(view.dtype)) return;
  store_float(pool.data() + scale_offset(plane, sequence, head, position), ir::DType::kF32, 0,
              scale(plane, sequence, head, position));
}

float KvCase::scale(KvPlane plane, int64_t sequence, int64_t head, int64_t position) const {
  if (!has_scales(spec_.dtype)) return 1;
  const auto a = static_cast<uint64_t>(sequence * 2 + (plane == KvPlane::kV ? 1 : 0));
  const float size = std::abs(hashed_value(spec_.seed + 5, a, static_cast<uint64_t>(position),
                                           static_cast<uint64_t>(head)));
  return (1 + size) / 100;
}

float KvCase::value(KvPlane plane, int64_t sequence, int64_t head, int64_t position,
                    int64_t d) const {
  return element(plane, sequence, head, position, d) * scale(plane, sequence, head, position);
}

float KvCase::element(KvPlane plane, int64_t sequence, int64_t head, int64_t position,
                      int64_t d) const {
  const float factor = spec_.dtype == ir::DType::kI8 ? 70 : 1;  // 1.7 becomes 121
  const auto a = static_cast<uint64_t>(sequence * 2 + (plane == KvPlane::kV ? 1 : 0));
  return rounded(spec_.dtype,
                 factor * hashed_value(spec_.seed, a, static_cast<uint64_t>(position),
                                       static_cast<uint64_t>(head * kMaxHeadSize + d)));
}

float KvCase::stored(KvPlane plane, int64_t sequence, int64_t head, int64_t position,
                     int64_t d) const {
  const float x =
      load_kv(pool.data() + slot_offset(plane, sequence, head, position), view.dtype, d);
  if (!has_scales(view.dtype)) return x;
  return x * load_float(pool.data() + scale_offset(plane, sequence, head, position),
                        ir::DType::kF32, 0);
}

void KvCase::clear(KvPlane plane, int64_t sequence, int64_t head, int64_t position) {
  const int64_t size = plane == KvPlane::kK ? view.k_size : view.v_size;
  std::fill_n(pool.begin() + slot_offset(plane, sequence, head, position),
              size * ir::dtype_size(view.dtype), kUnused);
  if (has_scales(view.dtype)) {
    std::fill_n(pool.begin() + scale_offset(plane, sequence, head, position), sizeof(float),
                kUnused);
  }
}

std::vector<Tensor> KvCase::tensors() {
  if (pool.empty()) fill_pool();
  view.pool = pool.data();
  std::vector<Tensor> out;
  const int64_t s = num_sequences();
  for (std::vector<int32_t>* values : {&sequence_length, &query_start, &query_length, &request_type,
                                       &past_length, &query_length}) {
    out.emplace_back(values->data(), ir::DType::kI32, std::initializer_list<int64_t>{s});
  }
  out.emplace_back(block_offsets.data(), ir::DType::kI32,
                   std::initializer_list<int64_t>{kGroups, s, blocks_per_sequence});
  out.emplace_back(&view, ir::DType::kState, std::span<const int64_t>{});
  return out;
}

std::vector<Tensor> KvCase::beam_tensors() {
  const int64_t s = num_sequences();
  return {{indirection.data(), ir::DType::kI32, std::initializer_list<int64_t>{s, positions}},
          {beam_slots.data(), ir::DType::kI32, std::initializer_list<int64_t>{s}}};
}

std::vector<InputSpec> beam_inputs(const KvCaseSpec& spec) {
  const KvCase layout(spec);
  const int64_t s = layout.num_sequences();
  return {ints({s, layout.positions}, layout.indirection), ints({s}, layout.beam_slots)};
}

std::vector<InputSpec> kv_inputs(const KvCaseSpec& spec) {
  const KvCase layout(spec);
  const int64_t s = layout.num_sequences();
  return {ints({s}, layout.sequence_length),
          ints({s}, layout.query_start),
          ints({s}, layout.query_length),
          on_host(ints({s}, layout.request_type)),
          on_host(ints({s}, layout.past_length)),
          on_host(ints({s}, layout.query_length)),
          ints({KvCase::kGroups, s, layout.blocks_per_sequence}, layout.block_offsets),
          cold(state([spec](Random&) {
            KvCase made(spec);
            made.fill_pool();
            return StateImage{std::move(made.pool), made.view};
          }))};
}

}  // namespace millrace::ops
