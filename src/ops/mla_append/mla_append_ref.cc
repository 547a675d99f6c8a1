// The specification, and the CPU's way: a row has few elements next to the products around it.
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/scalar_access.h"
#include "ops/mla_append/mla_append_inputs.h"

namespace millrace::ops {
namespace {

using In = MlaAppendInputs;

class RowAppend {
 public:
  explicit RowAppend(const Launch& launch)
      : launch_(launch),
        a_(launch.attrs<MlaAppend>()),
        shape_(mla_shape(a_)),
        sequences_(launch.in, In::kSequence) {}

  const SequenceRows& sequences() const { return sequences_; }

  void run(int64_t sequence, int64_t row, int64_t position) const {
    const Tensor& q = launch_.in[In::kQ];
    for (int64_t h = row * a_.heads; h < (row + 1) * a_.heads; ++h) {
      const int64_t first = h * shape_.q_size();
      for (int64_t d = first; d < first + a_.nope_size; ++d)
        store_float(launch_.out[0].data, q.dtype, d, load_float(q.data, q.dtype, d));
      rotate(q, first + a_.nope_size, row, launch_.out[0].data, q.dtype, first + a_.nope_size);
    }
    std::byte* stored = sequences_.k(sequence, 0, position);
    const ir::DType type = sequences_.cache->dtype;
    const int64_t first = row * shape_.cached();
    normalise(first, stored, type);
    rotate(launch_.in[In::kKv], first + a_.latent_size, row, stored, type, a_.latent_size);
  }

 private:
  /// Elements [first, first + R) of x to those of `out` from `at` on.
  void rotate(const Tensor& x, int64_t first, int64_t row, void* out, ir::DType type,
              int64_t at) const {
    const int half = a_.rope_size / 2;
    const float* angles = launch_.in[In::kAngles].as<float>() + row * a_.rope_size;
    for (int i = 0; i < half; ++i) {
      const int a = a_.interleaved ? 2 * i : i, b = a_.interleaved ? 2 * i + 1 : i + half;
      const float c = angles[i], s = angles[half + i];
      const float x0 = load_float(x.data, x.dtype, first + a);
      const float x1 = load_float(x.data, x.dtype, first + b);
      store_float(out, type, at + a, x0 * c - x1 * s);
      store_float(out, type, at + b, x1 * c + x0 * s);
    }
  }

  /// x / rms(x) * weight of the latent that begins at `first`; the squares are summed in double.
  void normalise(int64_t first, void* out, ir::DType type) const {
    const Tensor& kv = launch_.in[In::kKv];
    const Tensor& weight = launch_.in[In::kNorm];
    double squares = 0;
    for (int c = 0; c < a_.latent_size; ++c) {
      const double value = load_float(kv.data, kv.dtype, first + c);
      squares += value * value;
    }
    const auto mean = static_cast<float>(squares / a_.latent_size);
    const float factor = 1.0f / std::sqrt(mean + static_cast<float>(a_.norm_eps));
    for (int c = 0; c < a_.latent_size; ++c) {
      store_float(out, type, c,
                  load_float(weight.data, weight.dtype, c) *
                      (load_float(kv.data, kv.dtype, first + c) * factor));
    }
  }

  const Launch& launch_;
  const MlaAppend& a_;
  const MlaShape shape_;
  const SequenceRows sequences_;
};

}  // namespace

void mla_append_ref(const Launch& launch) {
  const RowAppend append(launch);
  const SequenceRows& sequences = append.sequences();
  for (int64_t s = 0; s < sequences.num_sequences; ++s) {
    const int64_t first = sequences.first_position(s);
    launch.pool().parallel_for(
        sequences.query_length[s],
        [&](int64_t i) { append.run(s, sequences.query_start[s] + i, first + i); },
        Schedule::kStatic);
  }
}

}  // namespace millrace::ops
