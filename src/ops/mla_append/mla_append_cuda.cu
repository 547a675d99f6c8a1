// A warp for each query head of a row, and one for its latent and key, which begins first, as it
// takes longest.
#include "ops/common/attention_cuda.cuh"
#include "ops/common/row_owner_cuda.cuh"
#include "ops/common/weight_access_cuda.cuh"
#include "ops/mla_append/mla_append_inputs.h"

namespace millrace::ops {
namespace {

using In = MlaAppendInputs;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct AppendArgs {
  const std::byte* q;   // [T, H*(Dn+R)]
  const std::byte* kv;  // [T, C+R]
  std::byte* q_out;
  const float* angles;  // [T, R]
  const void* norm;     // [C]
  ir::DType norm_type;
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  const int32_t* blocks;           // [S, blocks_per_sequence]
  int64_t blocks_per_sequence;
  int sequences;
  std::byte* plane;  // in block 0
  int64_t block_bytes;
  int tokens_per_block;
  MlaShape shape;
  bool interleaved;
  float eps;
};

/// A warp rotates R elements. Products and sums are rounded one by one, as on a CPU.
template <typename T, typename Out>
__device__ void rotate(const AppendArgs& a, const T* x, const float* angles, Out* out) {
  const int half = a.shape.rope_size / 2;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < half; i += kWarp) {
    const int first = a.interleaved ? 2 * i : i, second = a.interleaved ? 2 * i + 1 : i + half;
    const float c = angles[i], s = angles[half + i];
    const float x0 = to_float(x[first]), x1 = to_float(x[second]);
    out[first] = from_float<Out>(__fsub_rn(__fmul_rn(x0, c), __fmul_rn(x1, s)));
    out[second] = from_float<Out>(__fadd_rn(__fmul_rn(x1, c), __fmul_rn(x0, s)));
  }
}

/// Elements of a lane that are on their way together.
constexpr int kAtOnce = 16;

/// A warp writes x / rms(x) * weight. The squares are summed in double, as in the reference.
template <typename T, typename Out>
__device__ void normalise(const AppendArgs& a, const T* x, Out* out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, size = a.shape.latent_size;
  double squares = 0;
  for (int first = lane; first < size; first += kAtOnce * kWarp) {
    float values[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i)
      values[i] = first + i * kWarp < size ? to_float(x[first + i * kWarp]) : 0;
#pragma unroll
    for (const double value : values)
      squares += value * value;
  }
  for (int step = kWarp / 2; step > 0; step /= 2)
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  const auto mean = static_cast<float>(squares / size);
  const float factor = __fdiv_rn(1.0F, __fsqrt_rn(mean + a.eps));
  for (int c = lane; c < size; c += kWarp) {
    out[c] = from_float<Out>(
        __fmul_rn(load_element(a.norm, a.norm_type, c), __fmul_rn(to_float(x[c]), factor)));
  }
}

/// Asks for the norm's weight, which no kernel of the step writes.
__device__ void prefetch_norm(const AppendArgs& a) {
  constexpr int kLine = 128;
  const int bytes = a.shape.latent_size * (a.norm_type == ir::DType::kF32 ? 4 : 2);
  for (int at = static_cast<int>(threadIdx.x) % kWarp * kLine; at < bytes; at += kWarp * kLine)
    prefetch_to_l1(static_cast<const std::byte*>(a.norm) + at);
}

/// Grid: rows, blocks that share the warps of a row.
template <typename T, typename Stored>
__global__ void __launch_bounds__(kThreads)
    mla_append_kernel(const __grid_constant__ AppendArgs a) {
  __shared__ int scratch;
  const MlaShape& shape = a.shape;
  const int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int head = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) / kWarp - 1;
  if (head < 0) prefetch_norm(a);
  const int sequence = find_owner(a.query_start, a.query_length, a.sequences, row, &scratch);
  int64_t position = 0, block = 0;
  if (head < 0 && sequence >= 0) {
    position = int64_t{__ldcg(a.sequence_length + sequence)} - __ldcg(a.query_length + sequence) +
               row - __ldcg(a.query_start + sequence);
    block = __ldcg(a.blocks + sequence * a.blocks_per_sequence + position / a.tokens_per_block);
  }
  device::wait_for_predecessor();
  device::let_successor_start();
  if (sequence < 0 || head >= shape.heads) return;
  const float* angles = a.angles + row * shape.rope_size;
  if (head < 0) {
    const T* x = reinterpret_cast<const T*>(a.kv) + row * shape.cached();
    Stored* out = reinterpret_cast<Stored*>(a.plane + block * a.block_bytes) +
                  position % a.tokens_per_block * shape.cached();
    normalise(a, x, out);
    rotate(a, x + shape.latent_size, angles, out + shape.latent_size);
    return;
  }
  const int64_t first = (row * shape.heads + head) * shape.q_size();
  const T* x = reinterpret_cast<const T*>(a.q) + first;
  T* out = reinterpret_cast<T*>(a.q_out) + first;
  for (int d = lane; d < shape.nope_size; d += kWarp)
    out[d] = x[d];
  rotate(a, x + shape.nope_size, angles, out + shape.nope_size);
}

}  // namespace

void mla_append_cuda(const Launch& launch) {
  const int64_t rows = launch.out[0].dim(0);
  if (rows == 0) return;
  const auto& attributes = launch.attrs<MlaAppend>();
  const SequenceRows sequences(launch.in, In::kSequence);
  const KvCacheView& cache = *sequences.cache;
  const AppendArgs a{.q = launch.in[In::kQ].as<std::byte>(),
                     .kv = launch.in[In::kKv].as<std::byte>(),
                     .q_out = launch.out[0].as<std::byte>(),
                     .angles = launch.in[In::kAngles].as<float>(),
                     .norm = launch.in[In::kNorm].data,
                     .norm_type = launch.in[In::kNorm].dtype,
                     .sequence_length = sequences.sequence_length,
                     .query_start = sequences.query_start,
                     .query_length = sequences.query_length,
                     .blocks = sequences.block_offsets,
                     .blocks_per_sequence = sequences.blocks_per_sequence,
                     .sequences = static_cast<int>(sequences.num_sequences),
                     .plane = cache.pool + cache.k_offset,
                     .block_bytes = cache.block_bytes,
                     .tokens_per_block = cache.tokens_per_block,
                     .shape = mla_shape(attributes),
                     .interleaved = attributes.interleaved,
                     .eps = static_cast<float>(attributes.norm_eps)};
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>(attributes.heads / kWarps + 1));
  with_float_type(launch.in[In::kQ].dtype, [&]<typename T>(T) {
    with_float_type(cache.dtype, [&]<typename S>(S) {
      device::launch_kernel("mla_append_cuda", *launch.queue, grid, dim3(kThreads), 0,
                            mla_append_kernel<T, S>, a);
    });
  });
}

}  // namespace millrace::ops
