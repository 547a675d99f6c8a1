#include <type_traits>

#include "ops/common/activation_cuda.cuh"
#include "ops/common/gate_cuda.h"
#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128;
constexpr int kHeld = 2;  // packs of the gate, and of the other half, that a thread reads at once

/// x / (1 + exp(-z)) by the fast units: some 2^-20 of the result, which nobody sees in 16 bits.
__device__ float times_sigmoid(float x, float z) {
  return __fdividef(x, 1.0F + __expf(-z));
}

/// The activation, as exact as T can hold it.
template <ActivationKind kKind, typename T>
__device__ float activate_as(float x) {
  if constexpr (sizeof(T) == 2) {
    if constexpr (kKind == ActivationKind::kSilu) return times_sigmoid(x, x);
    if constexpr (kKind == ActivationKind::kQuickGelu) return times_sigmoid(x, 1.702F * x);
    // 1 + tanh(u) is 2 sigmoid(2u).
    if constexpr (kKind == ActivationKind::kGeluTanh) {
      return times_sigmoid(x, 1.59576912160573072F * (x + 0.044715F * x * x * x));
    }
  }
  return activate(kKind, x);
}

/// A pack as one register of 128 bits, or as what is left of it.
template <int kPack, typename T>
struct Raw {
  using Word = std::conditional_t<sizeof(T) * kPack == 16, uint4, Pack<T, kPack>>;
};

/// Nobody reads gate_up again: what is read need not stay in a cache.
__device__ uint4 read_once(const uint4* from) {
  return __ldcs(from);
}
template <typename T>
__device__ Pack<T, 1> read_once(const Pack<T, 1>* from) {
  return *from;
}

template <ActivationKind kKind, int kPack, typename T>
__device__ void write_gated(const typename Raw<kPack, T>::Word& gate,
                            const typename Raw<kPack, T>::Word& up, T* out) {
  using Elements = Pack<T, kPack>;
  const auto x = __builtin_bit_cast(Elements, gate), y = __builtin_bit_cast(Elements, up);
  float result[kPack];
#pragma unroll
  for (int i = 0; i < kPack; ++i)
    result[i] = activate_as<kKind, T>(to_float(x.at[i])) * to_float(y.at[i]);
  store_floats<kPack>(result, out);
}

/// Calls `function.operator()<kKind>()`, so that the kind is looked at once and not per element.
template <typename F>
__device__ void with_kind(ActivationKind kind, const F& function) {
  using enum ActivationKind;
  switch (kind) {
    case kNone:
      return function.template operator()<kNone>();
    case kSilu:
      return function.template operator()<kSilu>();
    case kGelu:
      return function.template operator()<kGelu>();
    case kGeluTanh:
      return function.template operator()<kGeluTanh>();
    case kRelu:
      return function.template operator()<kRelu>();
    case kRelu2:
      return function.template operator()<kRelu2>();
    case kQuickGelu:
      return function.template operator()<kQuickGelu>();
  }
}

/// A block takes kHeld * kThreads * kPack columns of one row. gate_up: [T, 2F], out: [T, F].
template <int kPack, typename T>
__global__ void __launch_bounds__(kThreads)
    gate_kernel(const T* gate_up, T* out, int64_t width, ActivationKind kind) {
  using Word = typename Raw<kPack, T>::Word;
  device::let_successor_start();
  device::wait_for_predecessor();
  const int64_t first = (int64_t{blockIdx.y} * kHeld * kThreads + threadIdx.x) * kPack;
  const T* from = gate_up + int64_t{blockIdx.x} * 2 * width + first;
  T* to = out + int64_t{blockIdx.x} * width + first;
  Word gate[kHeld], up[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int64_t skipped = int64_t{i} * kThreads * kPack;
    if (first + skipped >= width) continue;
    gate[i] = read_once(reinterpret_cast<const Word*>(from + skipped));
    up[i] = read_once(reinterpret_cast<const Word*>(from + width + skipped));
  }
  with_kind(kind, [&]<ActivationKind kKind>() {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int64_t skipped = int64_t{i} * kThreads * kPack;
      if (first + skipped < width) write_gated<kKind, kPack>(gate[i], up[i], to + skipped);
    }
  });
}

}  // namespace

void gate_cuda(const device::Queue& queue, ActivationKind kind, const Tensor& gate_up,
               const Tensor& out) {
  if (out.count() == 0) return;
  with_float_type(out.dtype, [&]<typename T>(T) {
    const int64_t width = out.dim(-1);
    const auto start = [&](auto kernel, int pack) {
      const dim3 grid(static_cast<unsigned>(out.rows()),
                      blocks_for(width, kHeld * kThreads * pack));
      device::launch_kernel("gate_cuda", queue, grid, dim3(kThreads), 0, kernel, gate_up.as<T>(),
                            out.as<T>(), width, kind);
    };
    if (width % kPackOf<T> == 0 && aligned_to_16(gate_up.as<T>(), out.as<T>())) {
      start(gate_kernel<kPackOf<T>, T>, kPackOf<T>);
    } else {
      start(gate_kernel<1, T>, 1);
    }
  });
}

}  // namespace millrace::ops
