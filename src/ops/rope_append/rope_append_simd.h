// rope_append by vectors of type V, rows spread over threads. Bound by memory: a row is read and
// written once. The products and sums of a rotation are those of the reference, bit for bit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "ops/common/cpu_tactic.h"
#include "ops/common/kv_elements.h"
#include "ops/common/vec_loops.h"
#include "ops/rope_append/rope_append.h"
#include "ops/rope_append/rope_append_inputs.h"

namespace millrace::ops {

/// Rows of f32 activations; T: the cache's type.
template <typename V, typename T>
class AppendKernel {
 public:
  explicit AppendKernel(const Launch& launch)
      : launch_(launch),
        a_(launch.attrs<RopeAppend>()),
        at_(a_),
        rows_(launch.in, a_, at_),
        sequences_(launch.in, static_cast<size_t>(at_.sequence)) {
    if (at_.angles >= 0) angles_ = launch.in[static_cast<size_t>(at_.angles)].as<float>();
  }

  const SequenceRows& sequences() const { return sequences_; }
  int64_t row_elements() const {
    return int64_t{a_.heads} * a_.head_size +
           int64_t{a_.kv_heads} * (a_.head_size + a_.v_head_size);
  }

  void run(int64_t sequence, int64_t row, int64_t position) const {
    const float* angles = angles_ == nullptr ? nullptr : angles_ + row * a_.rotary_dim;
    for (int64_t h = 0; h < a_.heads; ++h) {
      const float* q = floats(rows_.q) + row * rows_.q_stride + h * a_.head_size;
      float* out = launch_.out[0].as<float>() + (row * a_.heads + h) * a_.head_size;
      prepare(q, at_.q_norm, angles, out);
    }
    for (int64_t g = 0; g < a_.kv_heads; ++g) {
      const float* k = floats(rows_.k) + row * rows_.k_stride + g * a_.head_size;
      auto* k_out = reinterpret_cast<T*>(sequences_.k(sequence, g, position));
      const float* v = floats(rows_.v) + row * rows_.v_stride + g * a_.v_head_size;
      auto* v_out = reinterpret_cast<T*>(sequences_.v(sequence, g, position));
      if constexpr (kHasScale<T>) {
        float head[kMaxHeadSize];
        prepare(k, at_.k_norm, angles, head);
        store_int8(head, a_.head_size, k_out, sequences_.k_scale(sequence, g, position));
        store_int8(v, a_.v_head_size, v_out, sequences_.v_scale(sequence, g, position));
      } else {
        prepare(k, at_.k_norm, angles, k_out);
        copy(v, a_.v_head_size, v_out);
      }
    }
  }

 private:
  static const float* floats(const std::byte* data) { return reinterpret_cast<const float*>(data); }
  const Tensor& input(int index) const { return launch_.in[static_cast<size_t>(index)]; }

  template <typename Out>
  static void copy(const float* from, int64_t count, Out* to) {
    for_vectors<V>(count,
                   [&](int64_t i, auto lanes) { store(load<V>(from + i, lanes), to + i, lanes); });
  }

  /// One head of Q or K, normalised and rotated.
  template <typename Out>
  void prepare(const float* x, int norm, const float* angles, Out* out) const {
    float normalised[kMaxHeadSize];
    if (norm >= 0) {
      normalise(x, input(norm), normalised);
      x = normalised;
    }
    if (angles == nullptr) {
      copy(x, a_.head_size, out);
    } else if (a_.interleaved) {
      rotate_neighbours(x, angles, out);
    } else {
      rotate_halves(x, angles, out);
    }
  }

  void normalise(const float* x, const Tensor& weight, float* out) const {
    const float squares = sum_row<V>(x, a_.head_size, [](V v) { return v * v; });
    const auto factor = static_cast<float>(
        1 / std::sqrt(squares / static_cast<double>(a_.head_size) + a_.qk_norm_eps));
    const V offset = V::set(static_cast<float>(a_.qk_norm_offset));
    with_float_type(weight.dtype, [&]<typename W>(TypeTag<W>) {
      for_vectors<V>(a_.head_size, [&](int64_t i, auto lanes) {
        const V scaled = load<V>(x + i, lanes) * V::set(factor);
        store((offset + load<V>(weight.as<W>() + i, lanes)) * scaled, out + i, lanes);
      });
    });
  }

  /// `angles`: cosines, then sines, [R].
  template <typename Out>
  void rotate_halves(const float* x, const float* angles, Out* out) const {
    const int64_t half = a_.rotary_dim / 2;
    for_vectors<V>(half, [&](int64_t i, auto lanes) {
      const V c = load<V>(angles + i, lanes), s = load<V>(angles + half + i, lanes);
      const V x0 = load<V>(x + i, lanes), x1 = load<V>(x + half + i, lanes);
      store(x0 * c - x1 * s, out + i, lanes);
      store(x1 * c + x0 * s, out + half + i, lanes);
    });
    copy(x + a_.rotary_dim, a_.head_size - a_.rotary_dim, out + a_.rotary_dim);
  }

  template <typename Out>
  void rotate_neighbours(const float* x, const float* angles, Out* out) const {
    const int64_t half = a_.rotary_dim / 2;
    float rotated[kMaxHeadSize];
    for (int64_t i = 0; i < half; ++i) {
      const float c = angles[i], s = angles[half + i], x0 = x[2 * i], x1 = x[2 * i + 1];
      rotated[2 * i] = x0 * c - x1 * s;
      rotated[2 * i + 1] = x1 * c + x0 * s;
    }
    copy(rotated, a_.rotary_dim, out);
    copy(x + a_.rotary_dim, a_.head_size - a_.rotary_dim, out + a_.rotary_dim);
  }

  const Launch& launch_;
  const RopeAppend& a_;
  const RopeAppendInputs at_;
  const QkvRows rows_;
  const SequenceRows sequences_;
  const float* angles_ = nullptr;  // [T, R]
};

template <typename V>
void rope_append_simd(const Launch& launch) {
  const RopeAppendInputs at(launch.attrs<RopeAppend>());
  const auto* cache = launch.in[static_cast<size_t>(at.cache)].as<KvCacheView>();
  with_kv_type(cache->dtype, [&]<typename T>(TypeTag<T>) {
    const AppendKernel<V, T> kernel(launch);
    const SequenceRows& sequences = kernel.sequences();
    const auto rows_of = [&](int64_t s) -> int64_t {
      const auto type = static_cast<RequestType>(sequences.request_type[s]);
      return is_left_out(launch.attrs<RopeAppend>(), type) ? 0 : sequences.query_length[s];
    };
    int64_t rows = 0;  // that sequences own
    for (int64_t s = 0; s < sequences.num_sequences; ++s)
      rows += rows_of(s);
    for_rows(launch, rows, kernel.row_elements(), [&](int64_t begin, int64_t end) {
      int64_t first = 0;  // of the sequence's rows, counted over all sequences
      for (int64_t s = 0; first < end; first += rows_of(s++)) {
        const int64_t stop = std::min<int64_t>(end - first, rows_of(s));
        for (int64_t i = std::max<int64_t>(begin - first, 0); i < stop; ++i)
          kernel.run(s, sequences.query_start[s] + i, sequences.first_position(s) + i);
      }
    });
  });
}

}  // namespace millrace::ops
