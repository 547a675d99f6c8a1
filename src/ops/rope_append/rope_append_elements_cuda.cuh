// rope_append of heads of any size, an element a lane: a warp has a head of a row. For .cu files.
#pragma once

#include "ops/common/row_owner_cuda.cuh"
#include "ops/rope_append/rope_append_args_cuda.cuh"

namespace millrace::ops {

inline constexpr int kElementThreads = 256;
inline constexpr int kElementWarps = kElementThreads / kWarp;

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
__device__ float norm_factor(const T* x, const AppendArgs& a) {
  double squares = 0;
  for (int d = static_cast<int>(threadIdx.x) % kWarp; d < a.head_size; d += kWarp) {
    const double value = to_float(x[d]);
    squares += value * value;
  }
  for (int step = kWarp / 2; step > 0; step /= 2)
    squares += __shfl_xor_sync(0xffffffffu, squares, step);
  return norm_factor_of(squares, a);
}

/// Calls emit(d, value) for this lane's elements of one head, normalised and rotated. Products and
/// sums are rounded one by one, as on a CPU.
template <typename T, typename Emit>
__device__ void for_each_element(const AppendArgs& a, const T* x, const void* norm,
                                 ir::DType norm_type, const float* angles, const Emit& emit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const HeadReader<T> head{x, norm, norm_type, a.norm_offset,
                           norm == nullptr ? 1 : norm_factor(x, a)};
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

/// Grid: rows, groups of kElementWarps heads. The heads of Q, then of K, then of V.
template <typename T, typename Stored>
__global__ void __launch_bounds__(kElementThreads)
    append_elements(const __grid_constant__ AppendArgs a) {
  __shared__ int scratch;
  device::let_successor_start();
  // Where rows go follows from lengths and block tables, which no kernel writes.
  const int64_t row = blockIdx.x;
  const int sequence =
      find_owner(a.query_start, a.query_length, static_cast<int>(a.sequences), row, &scratch);
  int head = static_cast<int>(blockIdx.y) * kElementWarps + static_cast<int>(threadIdx.x) / kWarp;
  TokenSlot to{};
  if (sequence >= 0 && head >= a.heads) {
    to = slot_in(a, sequence,
                 a.sequence_length[sequence] - a.query_length[sequence] +
                     static_cast<int>(row - a.query_start[sequence]));
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
    const int64_t slot = vector_in_block(a, head, to);
    Stored* out =
        reinterpret_cast<Stored*>(a.k_plane + to.block * a.block_bytes) + slot * a.head_size;
    const auto each = [&](const auto& emit) {
      for_each_element(a, x, a.k_norm, a.k_norm_type, angles, emit);
    };
    write_vector(each, out, reinterpret_cast<float*>(a.k_scale + to.block * a.block_bytes) + slot);
    return;
  }
  head -= a.kv_heads;
  const T* x = reinterpret_cast<const T*>(a.v) + row * a.v_stride + head * a.v_head_size;
  const int64_t slot = vector_in_block(a, head, to);
  Stored* out =
      reinterpret_cast<Stored*>(a.v_plane + to.block * a.block_bytes) + slot * a.v_head_size;
  const auto each = [&](const auto& emit) {
    for (int d = static_cast<int>(threadIdx.x) % kWarp; d < a.v_head_size; d += kWarp)
      emit(d, to_float(x[d]));
  };
  write_vector(each, out, reinterpret_cast<float*>(a.v_scale + to.block * a.block_bytes) + slot);
}

}  // namespace millrace::ops
