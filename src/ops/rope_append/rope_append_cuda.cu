#include "ops/common/attention_cuda.cuh"
#include "ops/common/row_owner_cuda.cuh"
#include "ops/rope_append/rope_append_inputs.h"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct AppendArgs {
  const std::byte* q;
  const std::byte* k;
  const std::byte* v;
  int64_t q_stride, k_stride, v_stride;  // elements from one row to the next
  std::byte* q_out;                      // [T, heads * head_size]
  const float* angles = nullptr;         // [T, rotary_dim] or null
  const void* q_norm = nullptr;          // [head_size] or null
  const void* k_norm = nullptr;
  ir::DType q_norm_type = ir::DType::kF32, k_norm_type = ir::DType::kF32;
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  const int32_t* blocks;           // [S, blocks_per_sequence]
  int64_t blocks_per_sequence, sequences;
  std::byte* k_plane;  // in block 0
  std::byte* v_plane;
  std::byte* k_scale;  // of the vectors in block 0, where the cache has scales
  std::byte* v_scale;
  int64_t block_bytes;
  int tokens_per_block;
  int heads, kv_heads, head_size, v_head_size, rotary_dim;
  bool interleaved;
  float eps, norm_offset;
};

/// One element of a head, normalised. The order of the products is the reference's.
template <typename T>
struct HeadReader {
  const T* x;
  const void* norm;
  ir::DType norm_type;
  float norm_offset, factor;

  __device__ float at(int d) const {
    const float value = to_float(x[d]);
    if (norm == nullptr) return value;
    const float weight = __fadd_rn(norm_offset, load_element(norm, norm_type, d));
    return __fmul_rn(weight, __fmul_rn(value, factor));
  }
};

/// x / rms(x): the factor, in every lane. The squares are summed in double, as in the reference, so
/// that what is stored in few bits is rounded the same way.
template <typename T>
__device__ float norm_factor(const T* x, int size, float eps) {
  double squares = 0;
  for (int d = static_cast<int>(threadIdx.x) % kWarp; d < size; d += kWarp) {
    const double value = to_float(x[d]);
    squares += value * value;
  }
  for (int step = kWarp / 2; step > 0; step /= 2)
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  const auto mean = static_cast<float>(squares / size);
  return __fdiv_rn(1.0F, __fsqrt_rn(mean + eps));
}

/// Calls emit(d, value) for this lane's elements of one head, normalised and rotated. Products and
/// sums are rounded one by one, as on a CPU.
template <typename T, typename Emit>
__device__ void for_each_element(const AppendArgs& a, const T* x, const void* norm,
                                 ir::DType norm_type, const float* angles, const Emit& emit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const HeadReader<T> head{x, norm, norm_type, a.norm_offset,
                           norm == nullptr ? 1 : norm_factor(x, a.head_size, a.eps)};
  const int half = a.rotary_dim / 2;
  for (int i = lane; i < half; i += kWarp) {
    const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? 2 * i + 1 : i + half;
    const float c = angles[i], s = angles[half + i];
    const float x0 = head.at(first), x1 = head.at(second);
    emit(first, __fsub_rn(__fmul_rn(x0, c), __fmul_rn(x1, s)));
    emit(second, __fadd_rn(__fmul_rn(x1, c), __fmul_rn(x0, s)));
  }
  for (int d = a.rotary_dim + lane; d < a.head_size; d += kWarp)
    emit(d, head.at(d));
}

/// A warp writes a vector whose elements `each(emit)` gives, and its scale if Out has one.
template <typename Out, typename Each>
__device__ void write_vector(const Each& each, Out* out, float* scale) {
  if constexpr (kHasScale<Out>) {
    float largest = 0;
    each([&](int, float value) { largest = larger_size(largest, value); });
    for (int step = kWarp / 2; step > 0; step /= 2)
      largest = larger_size(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    const Int8Scale stored(largest);
    each([&](int d, float value) { out[d] = stored(value); });
    if (threadIdx.x % kWarp == 0) *scale = stored.scale;
  } else {
    each([&](int d, float value) { out[d] = from_float<Out>(value); });
  }
}

/// Grid: rows, groups of kWarps heads. The heads of Q, then of K, then of V.
template <typename T, typename Stored>
__global__ void __launch_bounds__(kThreads) append(const __grid_constant__ AppendArgs a) {
  __shared__ int scratch;
  device::let_successor_start();
  // Where rows go follows from lengths and block tables, which no kernel writes.
  const int64_t row = blockIdx.x;
  const int sequence =
      find_owner(a.query_start, a.query_length, static_cast<int>(a.sequences), row, &scratch);
  int head = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  int64_t block = 0, token = 0;
  if (sequence >= 0 && head >= a.heads) {
    const int64_t position = int64_t{a.sequence_length[sequence]} - a.query_length[sequence] + row -
                             a.query_start[sequence];
    block = a.blocks[sequence * a.blocks_per_sequence + position / a.tokens_per_block];
    token = position % a.tokens_per_block;
  }
  device::wait_for_predecessor();
  if (sequence < 0) return;
  const float* angles = a.angles == nullptr ? nullptr : a.angles + row * a.rotary_dim;
  if (head < a.heads) {
    const T* x = reinterpret_cast<const T*>(a.q) + row * a.q_stride + head * a.head_size;
    T* out = reinterpret_cast<T*>(a.q_out) + (row * a.heads + head) * a.head_size;
    for_each_element(a, x, a.q_norm, a.q_norm_type, angles,
                     [&](int d, float value) { out[d] = from_float<T>(value); });
    return;
  }
  head -= a.heads;
  if (head >= 2 * a.kv_heads) return;
  if (head < a.kv_heads) {
    const T* x = reinterpret_cast<const T*>(a.k) + row * a.k_stride + head * a.head_size;
    const int64_t slot = int64_t{head} * a.tokens_per_block + token;
    Stored* out = reinterpret_cast<Stored*>(a.k_plane + block * a.block_bytes) + slot * a.head_size;
    const auto each = [&](const auto& emit) {
      for_each_element(a, x, a.k_norm, a.k_norm_type, angles, emit);
    };
    write_vector(each, out, reinterpret_cast<float*>(a.k_scale + block * a.block_bytes) + slot);
    return;
  }
  head -= a.kv_heads;
  const T* x = reinterpret_cast<const T*>(a.v) + row * a.v_stride + head * a.v_head_size;
  const int64_t slot = int64_t{head} * a.tokens_per_block + token;
  Stored* out = reinterpret_cast<Stored*>(a.v_plane + block * a.block_bytes) + slot * a.v_head_size;
  const auto each = [&](const auto& emit) {
    for (int d = static_cast<int>(threadIdx.x) % kWarp; d < a.v_head_size; d += kWarp)
      emit(d, to_float(x[d]));
  };
  write_vector(each, out, reinterpret_cast<float*>(a.v_scale + block * a.block_bytes) + slot);
}

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

}  // namespace

void rope_append_cuda(const Launch& launch) {
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  const auto& attributes = launch.attrs<RopeAppend>();
  const RopeAppendInputs at(attributes);
  const SequenceRows sequences(launch.in, static_cast<size_t>(at.sequence));
  if (range_of(attributes, sequences).count == 0) return;
  const auto* cache = sequences.cache;
  const int heads = attributes.heads + 2 * attributes.kv_heads;
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>((heads + kWarps - 1) / kWarps));
  with_float_type(launch.in[0].dtype, [&]<typename T>(T) {
    with_cache_type(cache->dtype, [&]<typename S>(S) {
      device::launch_kernel("rope_append_cuda", *launch.queue, grid, kThreads, 0, append<T, S>,
                            append_args(launch));
    });
  });
}

}  // namespace millrace::ops
