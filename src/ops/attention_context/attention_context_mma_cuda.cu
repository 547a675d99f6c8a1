// Prompts on tensor cores, for bf16 or f16 queries and a cache of the same type, of int8 or of fp8:
// 64 query rows (token, head of the group) of one KV head pass over tiles of 64 keys, which are
// copied from the blocks of the cache while the tile before is computed. Logits, weights and sums
// are fp32; weights are rounded to the queries' type for their product with the values.
//
// A tile of 8 bits is widened to the queries' type when it has arrived. The scale of a key
// multiplies its logits, that of a value its weights.
#include <algorithm>

#include "ops/attention_context/attention_context.h"
#include "ops/attention_context/attention_context_tactics.h"
#include "ops/common/attention_cuda.cuh"
#include "ops/common/kv_widen_cuda.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;
constexpr int kWarpRows = 16;
constexpr int kRows = kThreads / kWarp * kWarpRows;
constexpr int kTileKeys = 64;
constexpr int kStepKeys = 16;  // keys, or elements of a product, of one matrix instruction
constexpr int kPack = 8;       // elements in 16 bytes
constexpr float kLog2E = 1.44269504F;

/// Elements from one row to the next in shared memory: 16 bytes more than the row, so that the
/// eight rows of a matrix lie in different banks.
__host__ __device__ inline int row_stride(int size) {
  return size + kPack;
}

__host__ __device__ inline int buffer_elements(int head_size, int v_head_size) {
  return kTileKeys * (row_stride(head_size) + row_stride(v_head_size));
}

/// Bytes of a tile of 8 bits as it is copied: K, V, then 64 scales of each.
__host__ __device__ inline int narrow_bytes(int head_size, int v_head_size) {
  return kTileKeys * (head_size + v_head_size + 2 * static_cast<int>(sizeof(float)));
}

/// Threads that copy one row of `chunks` times 16 bytes, as a power of two: no division.
__device__ inline int copy_shift(int chunks) {
  return chunks <= 1 ? 0 : 32 - __clz(chunks - 1);
}

/// The query rows of a block and the keys that they see: positions [0, sinks) and then those from
/// window_begin on.
struct QueryTile {
  int sequence, kv_head, first_row, rows;
  int row_start, first_position;  // the sequence's first row in the step, and its position
  int sinks, window_begin, keys;

  __device__ int position(int key) const { return key < sinks ? key : key - sinks + window_begin; }
};

__device__ QueryTile make_tile(const AttentionArgs& a, int sequence, int first_row) {
  QueryTile t;
  t.sequence = sequence;
  t.kv_head = static_cast<int>(blockIdx.y);
  t.first_row = first_row;
  const int tokens = a.query_length[sequence];
  t.rows = min(tokens * a.group - first_row, kRows);
  t.row_start = a.query_start[sequence];
  t.first_position = a.sequence_length[sequence] - tokens;
  const int last = t.first_position + (first_row + t.rows - 1) / a.group;
  t.window_begin = static_cast<int>(a.window_begin(t.first_position + first_row / a.group));
  t.sinks = min(a.sink_tokens, t.window_begin);
  t.keys = t.sinks + last + 1 - t.window_begin;
  return t;
}

/// One warp's 16 rows. In every fragment a thread has rows lane / 4 and lane / 4 + 8, columns
/// 2 * (lane % 4) and the one after.
/// `widens`: the cache has 8 bits.
template <typename T, int kMaxV>
class ContextKernel {
 public:
  __device__ ContextKernel(const AttentionArgs& a, const QueryTile& tile, bool widens,
                           std::byte* shared)
      : a_(a),
        tile_(tile),
        widens_(widens),
        k_stride_(row_stride(a.head_size)),
        v_stride_(row_stride(a.v_head_size)) {
    q_ = reinterpret_cast<T*>(shared);
    buffers_ = q_ + kRows * k_stride_;
    const int elements = buffer_elements(a.head_size, a.v_head_size);
    narrow_ = reinterpret_cast<std::byte*>(buffers_ + elements);
    keys_ =
        widens
            ? reinterpret_cast<KeyAddress*>(narrow_ + 2 * narrow_bytes(a.head_size, a.v_head_size))
            : reinterpret_cast<KeyAddress*>(buffers_ + 2 * elements);
    for (int i = 0; i < 2; ++i) {
      const int row = tile.first_row + warp() * kWarpRows + lane() / 4 + i * 8;
      position_[i] = tile.first_position + row / a.group;
      slope_[i] = head_logits(a, tile.kv_head * a.group + row % a.group).slope;
    }
  }

  __device__ void run() {
    find_keys(0, 0);
    find_keys(kTileKeys, 1);
    stage_queries();
    __syncthreads();
    stage(0);
    commit_copies();
    if (kTileKeys < tile_.keys) stage(1);
    commit_copies();
    int buffer = 0;
    for (int key = 0; key < tile_.keys; key += kTileKeys, buffer ^= 1) {
      wait_for_copies<1>();
      __syncthreads();  // also: the addresses of this tile have been used
      find_keys(key + 2 * kTileKeys, buffer);
      const T* k = buffers_;
      if (widens_) {
        widen(buffer);
        __syncthreads();
      } else {
        k += buffer * buffer_elements(a_.head_size, a_.v_head_size);
      }
      float weights[kTileKeys / 8][4] = {};
      add_products(k, weights);
      if (a_.has_scales()) scale_products(scales(buffer), weights);
      hide_keys(key, weights);
      weigh(weights);
      if (a_.has_scales()) scale_weights(scales(buffer) + kTileKeys, weights);
      add_values(k + kTileKeys * k_stride_, weights);
      __syncthreads();
      if (key + 2 * kTileKeys < tile_.keys) stage(buffer);
      commit_copies();
    }
    wait_for_copies<0>();
    write();
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / kWarp; }
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  /// Addresses of a tile's keys; behind the last key stands the last one again.
  __device__ void find_keys(int begin, int buffer) {
    const int i = static_cast<int>(threadIdx.x);
    if (i >= kTileKeys || begin >= tile_.keys) return;
    const int position = tile_.position(min(begin + i, tile_.keys - 1));
    keys_[buffer * kTileKeys + i] = key_address(a_, tile_.sequence, tile_.kv_head, position,
                                                widens_ ? 1 : static_cast<int>(sizeof(T)));
    if (a_.has_scales()) {
      keys_[(2 + buffer) * kTileKeys + i] =
          scale_address(a_, tile_.sequence, tile_.kv_head, position);
    }
  }

  /// Rows that are not there are zeros.
  __device__ void stage_queries() {
    const int chunks = a_.head_size / kPack, shift = copy_shift(chunks);
    for (int i = static_cast<int>(threadIdx.x); i < kRows << shift; i += kThreads) {
      const int row = i >> shift, chunk = i & ((1 << shift) - 1);
      if (chunk >= chunks) continue;
      T* to = q_ + row * k_stride_ + chunk * kPack;
      if (row < tile_.rows) {
        copy_async(shared_address_of(to),
                   static_cast<const T*>(a_.q) + head_row(row) * a_.head_size + chunk * kPack);
      } else {
        *reinterpret_cast<uint4*>(to) = uint4{0, 0, 0, 0};
      }
    }
  }

  /// (row of the step) * heads + head.
  __device__ int64_t head_row(int row) const {
    const int at = tile_.first_row + row;
    return int64_t{tile_.row_start + at / a_.group} * a_.heads + tile_.kv_head * a_.group +
           at % a_.group;
  }

  __device__ void stage(int buffer) {
    if (widens_) {
      std::byte* k = narrow_tile(buffer);
      stage_plane<true>(buffer, a_.head_size / 16, a_.head_size, k);
      stage_plane<false>(buffer, a_.v_head_size / 16, a_.v_head_size, k + kTileKeys * a_.head_size);
      if (!a_.has_scales()) return;
      const int i = static_cast<int>(threadIdx.x);  // a thread has the scale of a key or a value
      const KeyAddress& address = keys_[(2 + buffer) * kTileKeys + i % kTileKeys];
      copy_async_4(shared_address_of(scales(buffer) + i), i < kTileKeys ? address.k : address.v,
                   true);
    } else {
      T* k = buffers_ + buffer * buffer_elements(a_.head_size, a_.v_head_size);
      stage_plane<true>(buffer, a_.head_size / kPack, k_stride_ * 2, k);
      stage_plane<false>(buffer, a_.v_head_size / kPack, v_stride_ * 2, k + kTileKeys * k_stride_);
    }
  }

  /// Rows of `chunks` times 16 bytes, `stride` bytes apart.
  template <bool kIsK>
  __device__ void stage_plane(int buffer, int chunks, int stride, void* to) {
    const uint32_t first = shared_address_of(to);
    const int shift = copy_shift(chunks);
    for (int i = static_cast<int>(threadIdx.x); i < kTileKeys << shift; i += kThreads) {
      const int key = i >> shift, chunk = i & ((1 << shift) - 1);
      if (chunk >= chunks) continue;
      const KeyAddress& address = keys_[buffer * kTileKeys + key];
      copy_async(first + static_cast<uint32_t>(key * stride + chunk * 16),
                 (kIsK ? address.k : address.v) + chunk * 16);
    }
  }

  __device__ std::byte* narrow_tile(int buffer) const {
    return narrow_ + buffer * narrow_bytes(a_.head_size, a_.v_head_size);
  }
  /// Of the keys of a tile, and behind them of its values.
  __device__ float* scales(int buffer) const {
    return reinterpret_cast<float*>(narrow_tile(buffer) +
                                    kTileKeys * (a_.head_size + a_.v_head_size));
  }

  /// A tile that has arrived, element by element.
  __device__ void widen(int buffer) {
    const std::byte* k = narrow_tile(buffer);
    const std::byte* v = k + kTileKeys * a_.head_size;
    T* wide_v = buffers_ + kTileKeys * k_stride_;
    if (a_.has_scales()) {
      widen_plane<KvInt8>(k, a_.head_size / 16, k_stride_, buffers_);
      widen_plane<KvInt8>(v, a_.v_head_size / 16, v_stride_, wide_v);
    } else {
      widen_plane<KvFp8>(k, a_.head_size / 16, k_stride_, buffers_);
      widen_plane<KvFp8>(v, a_.v_head_size / 16, v_stride_, wide_v);
    }
  }

  template <typename Stored>
  __device__ void widen_plane(const std::byte* from, int chunks, int stride, T* to) {
    const int shift = copy_shift(chunks);
    for (int i = static_cast<int>(threadIdx.x); i < kTileKeys << shift; i += kThreads) {
      const int key = i >> shift, chunk = i & ((1 << shift) - 1);
      if (chunk >= chunks) continue;
      const uint4 packed = *reinterpret_cast<const uint4*>(from + (key * chunks + chunk) * 16);
      auto* out = reinterpret_cast<uint4*>(to + key * stride + chunk * 16);
      const uint2 a = widen_four_to<T, Stored>(packed.x), b = widen_four_to<T, Stored>(packed.y);
      out[0] = {a.x, a.y, b.x, b.y};
      const uint2 c = widen_four_to<T, Stored>(packed.z), d = widen_four_to<T, Stored>(packed.w);
      out[1] = {c.x, c.y, d.x, d.y};
    }
  }

  __device__ void add_products(const T* k, float (&products)[kTileKeys / 8][4]) {
    const uint32_t q_at =
        shared_address_of(q_ + (warp() * kWarpRows + lane() % 16) * k_stride_ + lane() / 16 * 8);
    const int matrix = lane() / 8;
    const uint32_t k_at =
        shared_address_of(k + (matrix / 2 * 8 + lane() % 8) * k_stride_ + matrix % 2 * 8);
    const int steps = a_.head_size / kStepKeys;
#pragma unroll 2
    for (int step = 0; step < steps; ++step) {
      const uint32_t bytes = static_cast<uint32_t>(step) * kStepKeys * sizeof(T);
      uint32_t q[4];
      load_matrices(q, q_at + bytes);
#pragma unroll
      for (int n = 0; n < kTileKeys / kStepKeys; ++n) {
        uint32_t b[4];
        load_matrices(b,
                      k_at + bytes + static_cast<uint32_t>(n * kStepKeys * k_stride_) * sizeof(T));
        multiply_add<T>(products[2 * n], q, {b[0], b[1]});
        multiply_add<T>(products[2 * n + 1], q, {b[2], b[3]});
      }
    }
  }

  /// A thread's keys: n * 8 + lane % 4 * 2 and the next one.
  __device__ static float2 pair_of(const float* scales, int n) {
    return *reinterpret_cast<const float2*>(scales + n * 8 + lane() % 4 * 2);
  }

  __device__ void scale_products(const float* scales, float (&products)[kTileKeys / 8][4]) const {
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
      const float2 scale = pair_of(scales, n);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        products[n][i] *= i % 2 == 0 ? scale.x : scale.y;
    }
  }

  /// In units of a power of two that is near the largest scale so far, so that halves hold them.
  __device__ void scale_weights(const float* scales, float (&weights)[kTileKeys / 8][4]) {
    const PowerOfTwo unit(fmaxf(warp_max(fmaxf(scales[lane()], scales[lane() + kWarp])), v_unit_));
    if (unit.value > v_unit_) {
      const float correction = v_unit_ * unit.inverse();
#pragma unroll
      for (int n = 0; n < kMaxV / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][i] *= correction;
      }
      v_unit_ = unit.value;
    }
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
      const float2 scale = pair_of(scales, n);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights[n][i] *= (i % 2 == 0 ? scale.x : scale.y) * unit.inverse();
    }
  }

  /// Products become what is more than scaled products, by a soft cap or ALiBi.
  __device__ void bend_logits(int begin, float (&logits)[kTileKeys / 8][4]) const {
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const HeadLogits head = {a_.scale, a_.softcap, slope_[i / 2], a_.alibi_bf16};
        const int at = tile_.position(begin + n * 8 + lane() % 4 * 2 + i % 2);
        logits[n][i] = head.scaled(logits[n][i]) + head.bias<float>(position_[i / 2], at);
      }
    }
  }

  /// Products become logits, in powers of two; those with keys that a row does not see, -inf.
  __device__ void hide_keys(int begin, float (&logits)[kTileKeys / 8][4]) const {
    if (!a_.plain_logits) bend_logits(begin, logits);
    const float scale = a_.plain_logits ? a_.scale * kLog2E : kLog2E;
    const int oldest = tile_.first_position + tile_.first_row / a_.group;
    const bool all_seen = begin + kTileKeys <= tile_.keys && a_.window == 0 &&
                          tile_.position(begin + kTileKeys - 1) <= oldest;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = begin + n * 8 + lane() % 4 * 2 + i % 2;
        logits[n][i] *= scale;
        if (all_seen) continue;
        if (key >= tile_.keys || !a_.sees(position_[i / 2], tile_.position(key))) {
          logits[n][i] = -INFINITY;
        }
      }
    }
  }

  /// Logits become weights; what was summed before is scaled down where a larger logit came.
  __device__ void weigh(float (&logits)[kTileKeys / 8][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float largest = largest_[i];
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n)
        largest = fmaxf(largest, fmaxf(logits[n][2 * i], logits[n][2 * i + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      const float shift = largest == -INFINITY ? 0 : largest;  // infinities do not cancel
      const float correction = exp2f(largest_[i] - shift);
      largest_[i] = largest;
      float sum = 0;  // of this thread's columns; write() adds up the four threads of a row
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
        for (int j = 2 * i; j < 2 * i + 2; ++j) {
          logits[n][j] = exp2f(logits[n][j] - shift);
          sum += logits[n][j];
        }
      }
      total_[i] = total_[i] * correction + sum;
#pragma unroll
      for (int n = 0; n < kMaxV / 8; ++n) {
        sums_[n][2 * i] *= correction;
        sums_[n][2 * i + 1] *= correction;
      }
    }
  }

  __device__ void add_values(const T* v, const float (&weights)[kTileKeys / 8][4]) {
    const int matrix = lane() / 8;
    const uint32_t v_at =
        shared_address_of(v + (matrix % 2 * 8 + lane() % 8) * v_stride_ + matrix / 2 * 8);
#pragma unroll
    for (int step = 0; step < kTileKeys / kStepKeys; ++step) {
      const uint32_t p[4] = {pack_pair<T>(weights[2 * step][0], weights[2 * step][1]),
                             pack_pair<T>(weights[2 * step][2], weights[2 * step][3]),
                             pack_pair<T>(weights[2 * step + 1][0], weights[2 * step + 1][1]),
                             pack_pair<T>(weights[2 * step + 1][2], weights[2 * step + 1][3])};
      const uint32_t row = v_at + static_cast<uint32_t>(step * kStepKeys * v_stride_) * sizeof(T);
#pragma unroll
      for (int n = 0; n < kMaxV / 16; ++n) {
        if (n * 16 >= a_.v_head_size) continue;
        uint32_t b[4];
        load_transposed(b, row + static_cast<uint32_t>(n) * 16 * sizeof(T));
        multiply_add<T>(sums_[2 * n], p, {b[0], b[1]});
        multiply_add<T>(sums_[2 * n + 1], p, {b[2], b[3]});
      }
    }
  }

  __device__ void write() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float total = total_[i];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int row = warp() * kWarpRows + lane() / 4 + i * 8;
      if (row >= tile_.rows) continue;
      const int64_t at = head_row(row);
      total = total_with_sink(a_, static_cast<int>(at % a_.heads), largest_[i], total);
      if (a_.has_scales()) total /= v_unit_;
      T* out = static_cast<T*>(a_.out) + at * a_.v_head_size + lane() % 4 * 2;
#pragma unroll
      for (int n = 0; n < kMaxV / 8; ++n) {
        if (n * 8 >= a_.v_head_size) continue;
        *reinterpret_cast<uint32_t*>(out + n * 8) =
            pack_pair<T>(sums_[n][2 * i] / total, sums_[n][2 * i + 1] / total);
      }
    }
  }

  const AttentionArgs& a_;
  const QueryTile& tile_;
  const bool widens_;
  const int k_stride_, v_stride_;
  T* q_;  // [kRows, head_size], rows padded
  // Twice [kTileKeys, head_size], [kTileKeys, v_head_size], rows padded. 8 bits: once, and behind
  // it twice the same as it is copied, rows not padded, and the scales.
  T* buffers_;
  std::byte* narrow_;
  KeyAddress* keys_;  // [2, kTileKeys], and another two of scales
  int position_[2];
  float slope_[2];
  float largest_[2] = {-INFINITY, -INFINITY}, total_[2] = {};
  float sums_[kMaxV / 8][4] = {};
  float v_unit_ = kSmallestUnit;  // of sums_, where values have scales
};

/// Grid: tiles of query rows, KV heads, context sequences.
template <typename T, int kMaxV>
__global__ void __launch_bounds__(kThreads)
    attend_context(const __grid_constant__ AttentionArgs a, bool widens) {
  extern __shared__ __align__(16) std::byte shared[];
  device::wait_for_predecessor();
  device::let_successor_start();
  const int sequence = static_cast<int>(blockIdx.z);
  // Late rows see most keys: they start first.
  const int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  if (first_row >= a.query_length[sequence] * a.group) return;
  const QueryTile tile = make_tile(a, sequence, first_row);
  ContextKernel<T, kMaxV>(a, tile, widens, shared).run();
}

int shared_bytes(const AttentionArgs& a, bool widens) {
  const int buffer = buffer_elements(a.head_size, a.v_head_size) * 2;
  const int tiles = widens ? buffer + 2 * narrow_bytes(a.head_size, a.v_head_size) : 2 * buffer;
  return kRows * row_stride(a.head_size) * 2 + tiles +
         (widens ? 4 : 2) * kTileKeys * static_cast<int>(sizeof(KeyAddress));
}

template <typename T, int kMaxV>
void launch_size(const Launch& launch, const AttentionArgs& args, dim3 grid, bool widens) {
  constexpr int kMaxShared = 180 * 1024;
  constexpr auto* kKernel = attend_context<T, kMaxV>;
  static const bool allowed = device::allow_shared("attend_context", kKernel, kMaxShared);
  static_cast<void>(allowed);
  const int shared = shared_bytes(args, widens);
  CHECK(shared <= kMaxShared);
  device::launch_kernel("attend_context", *launch.queue, grid, kThreads,
                        static_cast<size_t>(shared), kKernel, args, widens);
}

template <typename T>
void launch_type(const Launch& launch, const AttentionArgs& args, dim3 grid, bool widens) {
  if (args.v_head_size <= 128) return launch_size<T, 128>(launch, args, grid, widens);
  launch_size<T, 256>(launch, args, grid, widens);
}

bool fits(const AttentionShape& shape, const Launch& launch, const KvCacheView& cache) {
  const ir::DType q = launch.in[0].dtype;
  const bool type_fits = cache.dtype == q || ir::dtype_size(cache.dtype) == 1;
  return type_fits && q != ir::DType::kF32 && shape.relative_buckets == 0 &&
         shape.head_size % kStepKeys == 0 && shape.v_head_size % kStepKeys == 0 &&
         has_packed_keys(cache) && reinterpret_cast<uintptr_t>(launch.in[0].data) % 16 == 0;
}

}  // namespace

bool attention_context_mma(const Launch& launch, const AttentionShape& shape, int sequences,
                           int longest) {
  const KvCacheView& cache = *SequenceRows(launch.in, 1).cache;
  if (!fits(shape, launch, cache)) return false;
  if (sequences == 0 || longest == 0) return true;
  const dim3 grid(static_cast<unsigned>((longest * shape.group() + kRows - 1) / kRows),
                  static_cast<unsigned>(shape.kv_heads), static_cast<unsigned>(sequences));
  const AttentionArgs args = attention_args(launch, shape, 0);
  const bool widens = ir::dtype_size(cache.dtype) == 1;
  if (shared_bytes(args, widens) > device::shared_bytes_of_block()) return false;
  if (launch.in[0].dtype == ir::DType::kF16) {
    launch_type<__half>(launch, args, grid, widens);
  } else {
    launch_type<__nv_bfloat16>(launch, args, grid, widens);
  }
  return true;
}

}  // namespace millrace::ops
