#include <array>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/kv_elements.h"
#include "ops/common/scalar_access.h"
#include "ops/rope_append/rope_append.h"
#include "ops/rope_append/rope_append_inputs.h"
#include "ops/rope_append/rope_append_tactics.h"

namespace millrace::ops {
namespace {

using Head = std::array<float, kMaxHeadSize>;

/// x / rms(x) * (offset + weight); the squares are summed in double.
void normalise(const Tensor& weight, const RopeAppend& a, Head& x) {
  double squares = 0;
  for (int d = 0; d < a.head_size; ++d)
    squares += double{x[static_cast<size_t>(d)]} * double{x[static_cast<size_t>(d)]};
  const float mean = static_cast<float>(squares / a.head_size);
  const float factor = 1.0f / std::sqrt(mean + static_cast<float>(a.qk_norm_eps));
  for (int d = 0; d < a.head_size; ++d) {
    const float w = static_cast<float>(a.qk_norm_offset) + load_float(weight.data, weight.dtype, d);
    x[static_cast<size_t>(d)] = w * (x[static_cast<size_t>(d)] * factor);
  }
}

/// `angles`: cosines, then sines, [R].
void rotate(const float* angles, const RopeAppend& a, Head& x) {
  const int half = a.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const float c = angles[i], s = angles[half + i];
    float& first = x[static_cast<size_t>(a.interleaved ? 2 * i : i)];
    float& second = x[static_cast<size_t>(a.interleaved ? 2 * i + 1 : i + half)];
    const float rotated = first * c - second * s;
    second = second * c + first * s;
    first = rotated;
  }
}

class RowAppend {
 public:
  explicit RowAppend(const Launch& launch)
      : launch_(launch),
        a_(launch.attrs<RopeAppend>()),
        at_(a_),
        rows_(launch.in, a_, at_),
        sequences_(launch.in, static_cast<size_t>(at_.sequence)) {}

  const SequenceRows& sequences() const { return sequences_; }

  void run(int64_t sequence, int64_t row, int64_t position) const {
    const float* angles =
        at_.angles < 0 ? nullptr : input(at_.angles).as<float>() + row * a_.rotary_dim;
    const Tensor& q_out = launch_.out[0];
    Head head;
    for (int h = 0; h < a_.heads; ++h) {
      prepare(rows_.q, row * rows_.q_stride + int64_t{h} * a_.head_size, at_.q_norm, angles, head);
      const int64_t first = (row * a_.heads + h) * a_.head_size;
      for (int d = 0; d < a_.head_size; ++d)
        store_float(q_out.data, q_out.dtype, first + d, head[static_cast<size_t>(d)]);
    }
    for (int g = 0; g < a_.kv_heads; ++g) {
      prepare(rows_.k, row * rows_.k_stride + int64_t{g} * a_.head_size, at_.k_norm, angles, head);
      store(head, a_.head_size, sequences_.k(sequence, g, position),
            sequences_.k_scale(sequence, g, position));
      const int64_t first = row * rows_.v_stride + int64_t{g} * a_.v_head_size;
      for (int d = 0; d < a_.v_head_size; ++d)
        head[static_cast<size_t>(d)] = load_float(rows_.v, rows_.dtype, first + d);
      store(head, a_.v_head_size, sequences_.v(sequence, g, position),
            sequences_.v_scale(sequence, g, position));
    }
  }

 private:
  const Tensor& input(int index) const { return launch_.in[static_cast<size_t>(index)]; }

  /// One head of Q or K, normalised and rotated.
  void prepare(const std::byte* data, int64_t first, int norm, const float* angles,
               Head& head) const {
    for (int d = 0; d < a_.head_size; ++d)
      head[static_cast<size_t>(d)] = load_float(data, rows_.dtype, first + d);
    if (norm >= 0) normalise(input(norm), a_, head);
    if (angles != nullptr) rotate(angles, a_, head);
  }

  /// A vector as the cache stores it, and its scale where there is one.
  void store(const Head& x, int size, std::byte* to, float* scale) const {
    with_kv_type(sequences_.cache->dtype, [&]<typename T>(TypeTag<T>) {
      auto* out = reinterpret_cast<T*>(to);
      if constexpr (kHasScale<T>) {
        store_int8(x.data(), size, out, scale);
      } else {
        for (int d = 0; d < size; ++d) {
          if constexpr (std::is_same_v<T, KvFp8>) {
            out[d] = to_fp8(x[static_cast<size_t>(d)]);
          } else {
            out[d] = narrow<T>(x[static_cast<size_t>(d)]);
          }
        }
      }
    });
  }

  const Launch& launch_;
  const RopeAppend& a_;
  const RopeAppendInputs at_;
  const QkvRows rows_;
  const SequenceRows sequences_;
};

}  // namespace

void rope_append_ref(const Launch& launch) {
  const RowAppend append(launch);
  const SequenceRows& sequences = append.sequences();
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    if (is_left_out(launch.attrs<RopeAppend>(),
                    static_cast<RequestType>(sequences.request_type[s])))
      continue;
    const int64_t first = sequences.first_position(s);
    launch.pool().parallel_for(
        sequences.query_length[s],
        [&](int64_t i) { append.run(s, sequences.query_start[s] + i, first + i); },
        Schedule::kStatic);
  }
}

}  // namespace millrace::ops
