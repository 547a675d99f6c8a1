#include <algorithm>

#include "base/str.h"
#include "ops/common/attention_units_cuda.h"
#include "ops/common/element_types_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMaxUnitHeadSize = 256;
constexpr int kRoomForTiles = 100 * 1024;  // two blocks to a multiprocessor
constexpr int kMaxTileKeys = 64, kMinTileKeys = 16;
constexpr float kLog2E = 1.44269504F;

/// Sizes in shared memory. Keys and values lie as in the cache, rows padded so that 16-byte reads
/// of consecutive keys meet no bank twice.
struct UnitLayout {
  ir::DType type;           // of the cache's elements
  int element_bytes, pack;  // elements in 16 bytes
  int tile_keys;            // 64, or fewer where heads are large
  int k_chunks, v_chunks;   // of 16 bytes, the last one filled up with zeros
  int k_stride, v_stride;   // bytes from one key to the next
  int value_threads;        // that share one value vector, two elements each; a power of two
  bool packed;              // the cache can be read 16 bytes at a time

  __host__ __device__ int buffer_bytes() const { return tile_keys * (k_stride + v_stride); }
};

/// Query rows of one sequence that read the same K and V: `rows` rows from `first_row` of (token,
/// head of the group), tokens first. The keys seen are positions [0, sinks) and then those from
/// window_begin on, `keys` in all.
struct Unit {
  int sequence, kv_head, first_row, rows;
  int row_start;       // the sequence's first row in the step
  int first_position;  // of that row
  int sinks, window_begin, keys;

  __device__ int position(int key) const { return key < sinks ? key : key - sinks + window_begin; }
};

/// Shared memory of a block. Behind the two buffers of tiles come these.
template <int kRows>
struct UnitShared {
  std::byte* tiles;
  float* q;           // [kRows, k_chunks * elements per chunk]
  float* logits;      // [kThreads / tile_keys, kRows, tile_keys]: parts of the products
  float* weights;     // [tile_keys, kRows]
  float* correction;  // [kRows]
  float* largest;     // [kRows]
  float* total;       // [kRows]
  KeyAddress* keys;   // [2, tile_keys]

  __device__ UnitShared(std::byte* base, const UnitLayout& l, int q_floats) : tiles(base) {
    q = reinterpret_cast<float*>(base + tiles_bytes(l));
    logits = q + kRows * q_floats;
    weights = logits + kThreads * kRows;
    correction = weights + l.tile_keys * kRows;
    largest = correction + kRows;
    total = largest + kRows;
    keys = reinterpret_cast<KeyAddress*>(total + kRows);
  }
  /// At the end the tiles make room for the sums of all threads, two elements each.
  __host__ __device__ static int tiles_bytes(const UnitLayout& l) {
    const int sums = kThreads * kRows * static_cast<int>(sizeof(float2));
    return 2 * l.buffer_bytes() > sums ? 2 * l.buffer_bytes() : sums;
  }
  static int bytes(const UnitLayout& l, int q_floats) {
    const int floats = kRows * (q_floats + kThreads + l.tile_keys + 3);
    return tiles_bytes(l) + floats * 4 + 2 * l.tile_keys * static_cast<int>(sizeof(KeyAddress));
  }
};

template <typename T>
__device__ float2 load_pair(const std::byte* data) {
  const auto pair = *reinterpret_cast<const Pack<T, 2>*>(data);
  return {to_float(pair.at[0]), to_float(pair.at[1])};
}

/// Copies up to 16 bytes of a vector of `size` elements from element `begin` on, and zeros behind
/// its end, which are zeros of every type. Raw: as large as an element.
template <typename Raw>
__device__ void copy_elements(const std::byte* vector, int begin, int size, std::byte* to) {
  for (int e = 0; e < kPackOf<Raw>; ++e) {
    const int d = begin + e;
    reinterpret_cast<Raw*>(to)[e] = d < size ? reinterpret_cast<const Raw*>(vector)[d] : Raw{0};
  }
}

template <int kRows>
class UnitKernel {
 public:
  __device__ UnitKernel(const AttentionArgs& a, const UnitLayout& l, std::byte* shared)
      : a_(a), l_(l), s_(shared, l, l.k_chunks * l.pack) {}

  /// The rows of a unit over its keys [begin, end), at least one. Sums stay in shared memory:
  /// value() reads them.
  __device__ __forceinline__ void run(const Unit& unit, int begin, int end) {
    start(unit);
    find_keys(unit, begin, end, 0);
    find_keys(unit, begin + l_.tile_keys, end, 1);
    __syncthreads();
    stage(0);
    commit_copies();
    if (begin + l_.tile_keys < end) stage(1);
    commit_copies();
    int buffer = 0;
    for (int key = begin; key < end; key += l_.tile_keys, buffer ^= 1) {
      const int count = min(end - key, l_.tile_keys);
      wait_for_copies<1>();
      __syncthreads();
      on_cache_type(l_.type, [&]<typename T>(T) { add_products<T>(buffer); });
      __syncthreads();  // also: the addresses of this tile have been used
      if (!a_.plain_logits) bend_logits(unit, key, count);
      find_keys(unit, key + 2 * l_.tile_keys, end, buffer);
      weigh(unit, key, count);
      __syncthreads();
      on_cache_type(l_.type, [&]<typename T>(T) { add_values<T>(buffer, count); });
      __syncthreads();
      if (key + 2 * l_.tile_keys < end) stage(buffer);
      commit_copies();
    }
    wait_for_copies<0>();
    finish();
  }

  __device__ float largest(int row) const { return s_.largest[row]; }
  __device__ float total(int row) const { return s_.total[row]; }
  /// Element `d` of a row's sum of values, not yet divided by total().
  __device__ float value(int row, int d) const {
    const auto* sums = reinterpret_cast<const float*>(s_.tiles);
    float sum = 0;
    for (int g = 0; g < kThreads / l_.value_threads; ++g)
      sum += sums[(g * kRows + row) * l_.value_threads * 2 + d];
    return sum;
  }

 private:
  static constexpr int kWarpRows = (kRows + kWarps - 1) / kWarps;

  const __device__ std::byte* k_tile(int buffer) const {
    return s_.tiles + buffer * l_.buffer_bytes();
  }
  const __device__ std::byte* v_tile(int buffer) const {
    return k_tile(buffer) + l_.tile_keys * l_.k_stride;
  }

  /// Clears the sums and fetches the queries, as floats; rows and elements that are not there are
  /// zeros.
  __device__ __forceinline__ void start(const Unit& unit) {
    __syncthreads();  // value() may have been read
    const int size = l_.k_chunks * l_.pack;
    for (int i = static_cast<int>(threadIdx.x); i < kRows * size; i += kThreads) {
      const int row = i / size, d = i % size;
      float x = 0;
      if (row < unit.rows && d < a_.head_size) {
        const int at = unit.first_row + row;
        const int64_t head_row = int64_t{unit.row_start + at / a_.group} * a_.heads +
                                 unit.kv_head * a_.group + at % a_.group;
        x = load_element(a_.q, a_.type, head_row * a_.head_size + d);
      }
      s_.q[i] = x;
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums_[r] = {0, 0};
#pragma unroll
    for (int i = 0; i < kWarpRows; ++i) {
      largest_[i] = -INFINITY;
      total_[i] = 0;
    }
  }

  /// Addresses of a tile's keys; behind the last key stands the last one again.
  __device__ __forceinline__ void find_keys(const Unit& unit, int begin, int end, int buffer) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= l_.tile_keys || begin >= end) return;
    s_.keys[buffer * l_.tile_keys + i] = key_address(
        a_, unit.sequence, unit.kv_head, unit.position(min(begin + i, end - 1)), l_.element_bytes);
  }

  __device__ __forceinline__ void stage(int buffer) {
    std::byte* k = s_.tiles + buffer * l_.buffer_bytes();
    std::byte* v = k + l_.tile_keys * l_.k_stride;
    stage_plane<true>(buffer, l_.k_chunks, a_.head_size, l_.k_stride, k);
    stage_plane<false>(buffer, l_.v_chunks, a_.v_head_size, l_.v_stride, v);
  }

  template <bool kIsK>
  __device__ void stage_plane(int buffer, int chunks, int size, int stride, std::byte* to) {
    // A power of two of threads to a key: no division.
    const int shift = chunks <= 1 ? 0 : 32 - __clz(chunks - 1);
    for (int i = static_cast<int>(threadIdx.x); i < l_.tile_keys << shift; i += kThreads) {
      const int key = i >> shift, chunk = i & ((1 << shift) - 1);
      if (chunk >= chunks) continue;
      const KeyAddress& address = s_.keys[buffer * l_.tile_keys + key];
      const std::byte* from = kIsK ? address.k : address.v;
      std::byte* place = to + key * stride + chunk * 16;
      if (l_.packed) {
        copy_async(shared_address_of(place), from + chunk * 16);
      } else if (l_.element_bytes == 4) {
        copy_elements<uint32_t>(from, chunk * l_.pack, size, place);
      } else if (l_.element_bytes == 2) {
        copy_elements<uint16_t>(from, chunk * l_.pack, size, place);
      } else {
        copy_elements<uint8_t>(from, chunk * l_.pack, size, place);
      }
    }
  }

  /// Products of all rows with the keys of a tile: one key to a thread, or a part of one.
  template <typename T>
  __device__ __forceinline__ void add_products(int buffer) {
    constexpr int kPack = kPackOf<T>;
    const int key = static_cast<int>(threadIdx.x) % l_.tile_keys;
    const int part = static_cast<int>(threadIdx.x) / l_.tile_keys;
    const int parts = kThreads / l_.tile_keys;
    const std::byte* k = k_tile(buffer) + key * l_.k_stride;
    float sums[kRows] = {};
    for (int chunk = part; chunk < l_.k_chunks; chunk += parts) {
      const auto packed = *reinterpret_cast<const Pack<T, kPack>*>(k + chunk * 16);
      float x[kPack];
#pragma unroll
      for (int e = 0; e < kPack; ++e)
        x[e] = to_float(packed.at[e]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float* q = s_.q + r * l_.k_chunks * kPack + chunk * kPack;
#pragma unroll
        for (int e = 0; e < kPack; e += 4) {
          const float4 four = *reinterpret_cast<const float4*>(q + e);
          sums[r] = fmaf(four.x, x[e], sums[r]);
          sums[r] = fmaf(four.y, x[e + 1], sums[r]);
          sums[r] = fmaf(four.z, x[e + 2], sums[r]);
          sums[r] = fmaf(four.w, x[e + 3], sums[r]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      s_.logits[(part * kRows + r) * l_.tile_keys + key] = sums[r];
  }

  /// Of the key and of the value of a position.
  __device__ __forceinline__ float2 scales_of(const Unit& unit, int position) const {
    const KeyAddress at = scale_address(a_, unit.sequence, unit.kv_head, position);
    return {*reinterpret_cast<const float*>(at.k), *reinterpret_cast<const float*>(at.v)};
  }

  /// Products become logits that are more than scaled products: part 0 of them, the others zeros.
  __device__ __forceinline__ void bend_logits(const Unit& unit, int begin, int count) {
    const int parts = kThreads / l_.tile_keys;
    for (int i = static_cast<int>(threadIdx.x); i < unit.rows * l_.tile_keys; i += kThreads) {
      const int row = i / l_.tile_keys, key = i % l_.tile_keys;
      if (key >= count) continue;
      const int at = unit.first_row + row;
      const int position = unit.first_position + at / a_.group;
      const int key_position = unit.position(begin + key);
      float sum = 0;
      for (int part = 0; part < parts; ++part) {
        float& product = s_.logits[(part * kRows + row) * l_.tile_keys + key];
        sum += product;
        product = 0;
      }
      if (key_position > position) continue;
      if (a_.has_scales()) sum *= scales_of(unit, key_position).x;
      s_.logits[row * l_.tile_keys + key] =
          logit_of(a_, unit.kv_head * a_.group + at % a_.group, sum, position, key_position);
    }
    __syncthreads();
  }

  /// Logits become weights; a warp has every fourth row.
  __device__ __forceinline__ void weigh(const Unit& unit, int begin, int count) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int parts = kThreads / l_.tile_keys;
    constexpr int kLaneKeys = kMaxTileKeys / kWarp;
    const float scale = a_.plain_logits ? a_.scale : 1;
#pragma unroll
    for (int i = 0; i < kWarpRows; ++i) {
      const int row = static_cast<int>(threadIdx.x) / kWarp + i * kWarps;
      if (row >= kRows) continue;
      const int position = unit.first_position + (unit.first_row + row) / a_.group;
      float logits[kLaneKeys], v_scale[kLaneKeys];
      float largest = largest_[i];
#pragma unroll
      for (int j = 0; j < kLaneKeys; ++j) {
        const int key = lane + j * kWarp;
        logits[j] = -INFINITY;
        v_scale[j] = 1;
        if (key >= count || row >= unit.rows) continue;
        if (!a_.sees(position, unit.position(begin + key))) continue;
        float sum = 0;
        for (int part = 0; part < parts; ++part)
          sum += s_.logits[(part * kRows + row) * l_.tile_keys + key];
        if (a_.has_scales()) {
          const float2 scales = scales_of(unit, unit.position(begin + key));
          if (a_.plain_logits) sum *= scales.x;
          v_scale[j] = scales.y;
        }
        logits[j] = scale * sum;
        largest = fmaxf(largest, logits[j]);
      }
      largest = warp_max(largest);
      const float shift = largest == -INFINITY ? 0 : largest;  // infinities do not cancel
      const float correction = expf(largest_[i] - shift);
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kLaneKeys; ++j) {
        const int key = lane + j * kWarp;
        const float weight = expf(logits[j] - shift);
        sum += weight;
        if (key >= l_.tile_keys) continue;
        s_.weights[key * kRows + row] = weight * v_scale[j];
      }
      total_[i] = total_[i] * correction + warp_sum(sum);
      largest_[i] = largest;
      if (lane == 0) s_.correction[row] = correction;
    }
  }

  /// Adds the weighted values of a tile: two elements and some of the keys to a thread.
  template <typename T>
  __device__ __forceinline__ void add_values(int buffer, int count) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float correction = s_.correction[r];
      sums_[r].x *= correction;
      sums_[r].y *= correction;
    }
    const int pair = static_cast<int>(threadIdx.x) % l_.value_threads;
    if (pair * 2 >= a_.v_head_size) return;
    const int groups = kThreads / l_.value_threads;
    const std::byte* v = v_tile(buffer) + pair * 2 * static_cast<int>(sizeof(T));
#pragma unroll 4
    for (int key = static_cast<int>(threadIdx.x) / l_.value_threads; key < count; key += groups) {
      const float2 x = load_pair<T>(v + key * l_.v_stride);
#pragma unroll
      for (int r = 0; r < kRows; r += 4) {
        const float4 w = *reinterpret_cast<const float4*>(s_.weights + key * kRows + r);
        add(sums_[r], w.x, x);
        add(sums_[r + 1], w.y, x);
        add(sums_[r + 2], w.z, x);
        add(sums_[r + 3], w.w, x);
      }
    }
  }

  __device__ static void add(float2& sum, float weight, float2 x) {
    sum.x = fmaf(weight, x.x, sum.x);
    sum.y = fmaf(weight, x.y, sum.y);
  }

  __device__ __forceinline__ void finish() {
    const int pair = static_cast<int>(threadIdx.x) % l_.value_threads;
    const int group = static_cast<int>(threadIdx.x) / l_.value_threads;
    auto* sums = reinterpret_cast<float2*>(s_.tiles);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      sums[(group * kRows + r) * l_.value_threads + pair] = sums_[r];
#pragma unroll
    for (int i = 0; i < kWarpRows; ++i) {
      const int row = static_cast<int>(threadIdx.x) / kWarp + i * kWarps;
      if (row >= kRows || threadIdx.x % kWarp != 0) continue;
      s_.largest[row] = largest_[i];
      s_.total[row] = total_[i];
    }
    __syncthreads();
  }

  const AttentionArgs& a_;
  const UnitLayout& l_;
  const UnitShared<kRows> s_;
  float2 sums_[kRows];
  float largest_[kWarpRows], total_[kWarpRows];  // of this warp's rows
};

__device__ Unit make_unit(const AttentionArgs& a, int sequence, int first_row, int max_rows) {
  Unit unit;
  unit.sequence = sequence;
  unit.kv_head = static_cast<int>(blockIdx.y);
  unit.first_row = first_row;
  const int tokens = a.query_length[sequence];
  unit.rows = min(tokens * a.group - first_row, max_rows);
  unit.row_start = a.query_start[sequence];
  unit.first_position = a.sequence_length[sequence] - tokens;
  const int last = unit.first_position + (first_row + unit.rows - 1) / a.group;
  unit.window_begin = static_cast<int>(a.window_begin(unit.first_position + first_row / a.group));
  unit.sinks = min(a.sink_tokens, unit.window_begin);
  unit.keys = unit.sinks + last + 1 - unit.window_begin;
  return unit;
}

struct PieceSize {
  int pieces, keys;
};

/// Short sequences are cut finely, so that one alone keeps the machine busy.
__device__ PieceSize split_keys(int keys, int splits) {
  if (splits > 0) return {splits, (keys + splits - 1) / splits};
  int piece = 64;
  while (piece < 256 && keys > 16 * piece)
    piece *= 2;
  while (keys > kMaxUnitPieces * piece)
    piece *= 2;
  return {(keys + piece - 1) / piece, piece};
}

/// The number of a sequence's first row among this launch's rows (UnitPieces).
__device__ int first_slot(const AttentionArgs& a, const UnitPieces& p, int sequence) {
  if (p.by_step_row) return a.query_start[sequence] - p.first_row;
  int slot = -p.first_row;
  for (int s = a.first_sequence; s < sequence; ++s)
    slot += a.query_length[s];
  return slot;
}

__device__ float* partial_at(const AttentionArgs& a, const UnitPieces& p, int slot, int head,
                             int piece) {
  const int64_t index = (int64_t{slot} * a.heads + head) * kMaxUnitPieces + piece;
  const int padded = (a.v_head_size + 3) / 4 * 4;
  return p.partials + index * (padded + 4);
}

/// Writes the rows of a unit: to the output, or as partial results of one piece.
template <typename Kernel>
__device__ void write_unit(const AttentionArgs& a, const UnitPieces& p, const Unit& unit,
                           const Kernel& kernel, bool has_keys, int slot, int piece, bool whole) {
  const int size = a.v_head_size;
  const int padded = (size + 3) / 4 * 4;
  for (int i = static_cast<int>(threadIdx.x); i < unit.rows * padded; i += kThreads) {
    const int row = i / padded, d = i % padded;
    const int at = unit.first_row + row;
    const int token = at / a.group, head = unit.kv_head * a.group + at % a.group;
    const int row_slot = slot + token;
    if (!p.whole && (row_slot < 0 || row_slot >= p.num_rows)) continue;
    if (whole) {
      if (d >= size) continue;
      const int64_t out = (int64_t{unit.row_start + token} * a.heads + head) * size + d;
      const float total = total_with_sink(a, head, kernel.largest(row) * kLog2E, kernel.total(row));
      store_element(a.out, a.type, out, kernel.value(row, d) / total);
      continue;
    }
    float* partial = partial_at(a, p, row_slot, head, piece);
    if (d < size && has_keys) partial[d] = kernel.value(row, d);
    if (d == 0) {
      partial[padded] = has_keys ? kernel.largest(row) : -INFINITY;
      partial[padded + 1] = has_keys ? kernel.total(row) : 0;
    }
  }
}

/// Grid: sequences, KV heads, blocks that share the work of one of them.
template <int kRows>
__global__ void __launch_bounds__(kThreads)
    attend_units(const __grid_constant__ AttentionArgs a, const __grid_constant__ UnitLayout layout,
                 const UnitPieces p) {
  extern __shared__ __align__(16) std::byte shared[];
  device::wait_for_predecessor();
  device::let_successor_start();
  const int sequence = a.first_sequence + static_cast<int>(blockIdx.x);
  const int rows = a.query_length[sequence] * a.group;
  if (rows == 0) return;
  const int blocks = static_cast<int>(gridDim.z), block = static_cast<int>(blockIdx.z);
  // Blocks share units where these are whole, else the pieces of each.
  const int first_row = p.whole ? block * kRows : 0;
  const int row_step = p.whole ? blocks * kRows : kRows;
  const int first_piece = p.whole ? 0 : block;
  const int slot = p.whole ? 0 : first_slot(a, p, sequence);
  UnitKernel<kRows> kernel(a, layout, shared);
  for (int row = first_row; row < rows; row += row_step) {
    const Unit unit = make_unit(a, sequence, row, kRows);
    const bool is_elsewhere =
        slot + (row + unit.rows - 1) / a.group < 0 || slot + row / a.group >= p.num_rows;
    if (!p.whole && is_elsewhere) continue;
    const PieceSize size = p.whole ? PieceSize{1, unit.keys} : split_keys(unit.keys, p.splits);
    for (int piece = first_piece; piece < size.pieces; piece += blocks) {
      const int begin = piece * size.keys, end = min(begin + size.keys, unit.keys);
      if (begin < end) kernel.run(unit, begin, end);
      write_unit(a, p, unit, kernel, begin < end, slot, piece, size.pieces == 1);
    }
  }
}

/// Grid: sequences, groups of kWarps heads. A warp has one head, one token after the other.
__global__ void __launch_bounds__(kThreads)
    join_pieces(const __grid_constant__ AttentionArgs a, const UnitPieces p, int max_unit_rows) {
  device::wait_for_predecessor();
  device::let_successor_start();
  const int sequence = a.first_sequence + static_cast<int>(blockIdx.x);
  const int head = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int tokens = a.query_length[sequence];
  if (head >= a.heads || tokens == 0) return;
  const int row_start = a.query_start[sequence];
  const int slot = first_slot(a, p, sequence);
  const int padded = (a.v_head_size + 3) / 4 * 4;
  for (int token = 0; token < tokens; ++token) {
    if (slot + token < 0 || slot + token >= p.num_rows) continue;
    const int at = token * a.group + head % a.group;
    const Unit unit = make_unit(a, sequence, at / max_unit_rows * max_unit_rows, max_unit_rows);
    const int pieces = split_keys(unit.keys, p.splits).pieces;
    if (pieces == 1) continue;  // written already
    const float* partials = partial_at(a, p, slot + token, head, 0);
    const float* own = partials + lane * (padded + 4) + padded;  // of piece `lane`
    const float own_largest = lane < pieces ? own[0] : -INFINITY;
    const float own_total = lane < pieces ? own[1] : 0;
    // The row sees its own key at least, so the largest logit is finite.
    const float largest = warp_max(own_largest);
    const float weight = expf(own_largest - largest);
    const float total = total_with_sink(a, head, largest * kLog2E, warp_sum(weight * own_total));
    for (int d = lane; d - lane < a.v_head_size; d += kWarp) {
      float sum = 0;
#pragma unroll 8
      for (int piece = 0; piece < pieces; ++piece) {
        const float w = __shfl_sync(0xffffffffu, weight, piece);
        // Nothing was written for a piece without keys.
        const bool there = w > 0 && d < a.v_head_size;
        sum = fmaf(w, there ? partials[piece * (padded + 4) + d] : 0, sum);
      }
      const int64_t out = (int64_t{row_start + token} * a.heads + head) * a.v_head_size + d;
      if (d < a.v_head_size) store_element(a.out, a.type, out, sum / total);
    }
  }
}

int padded_stride(int bytes) {
  const int chunks = (bytes + 15) / 16;
  return (chunks + (chunks % 2 == 0 ? 1 : 0)) * 16;
}

template <int kRows>
UnitLayout layout_of(const AttentionShape& shape, const KvCacheView& cache) {
  const auto size = static_cast<int>(ir::dtype_size(cache.dtype));
  UnitLayout l{};
  l.type = cache_type(cache.dtype);
  l.element_bytes = size;
  l.pack = 16 / size;
  l.k_chunks = (shape.head_size * size + 15) / 16;
  l.v_chunks = (shape.v_head_size * size + 15) / 16;
  l.k_stride = padded_stride(shape.head_size * size);
  l.v_stride = padded_stride(shape.v_head_size * size);
  l.packed = has_packed_keys(cache);
  l.value_threads = 8;
  while (l.value_threads * 2 < shape.v_head_size)
    l.value_threads *= 2;
  l.tile_keys = kMaxTileKeys;
  const auto fits = [&] {
    return 2 * l.buffer_bytes() <= kRoomForTiles &&
           UnitShared<kRows>::bytes(l, l.k_chunks * l.pack) <= device::shared_bytes_of_block();
  };
  while (l.tile_keys > kMinTileKeys && !fits())
    l.tile_keys /= 2;
  return l;
}

template <int kRows>
void launch_units(const Launch& launch, const AttentionShape& shape, const AttentionArgs& args,
                  const UnitPieces& pieces, dim3 grid) {
  constexpr int kMaxShared = 160 * 1024;
  static const bool allowed = device::allow_shared("attend_units", attend_units<kRows>, kMaxShared);
  static_cast<void>(allowed);
  const UnitLayout layout = layout_of<kRows>(shape, *SequenceRows(launch.in, 1).cache);
  const int shared = UnitShared<kRows>::bytes(layout, layout.k_chunks * layout.pack);
  CHECK(shared <= kMaxShared);
  device::launch_kernel("attend_units", *launch.queue, grid, kThreads, static_cast<size_t>(shared),
                        attend_units<kRows>, args, layout, pieces);
}

}  // namespace

std::string why_no_units(const AttentionShape& shape) {
  if (shape.head_size <= kMaxUnitHeadSize && shape.v_head_size <= kMaxUnitHeadSize) return "";
  return str("needs heads of at most ", kMaxUnitHeadSize);
}

int unit_rows(const AttentionShape& shape, bool whole) {
  return !whole && shape.group() <= 4 ? 4 : 16;
}

void attend_units_cuda(const Launch& launch, const AttentionShape& shape, int first, int count,
                       int blocks, const UnitPieces& pieces) {
  if (count <= 0 || blocks <= 0) return;
  const AttentionArgs args = attention_args(launch, shape, first);
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(shape.kv_heads),
                  static_cast<unsigned>(std::min(blocks, 65535)));
  if (unit_rows(shape, pieces.whole) == 4) {
    launch_units<4>(launch, shape, args, pieces, grid);
  } else {
    launch_units<16>(launch, shape, args, pieces, grid);
  }
}

void join_pieces_cuda(const Launch& launch, const AttentionShape& shape, int first, int count,
                      const UnitPieces& pieces) {
  if (count <= 0) return;
  const dim3 grid(static_cast<unsigned>(count),
                  static_cast<unsigned>((shape.heads + kWarps - 1) / kWarps));
  device::launch_kernel("join_pieces", *launch.queue, grid, kThreads, 0, join_pieces,
                        attention_args(launch, shape, first), pieces, unit_rows(shape, false));
}

}  // namespace millrace::ops
