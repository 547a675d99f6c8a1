// The specification: one query of one head after the other, absorbed, in double.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/scalar_access.h"
#include "ops/common/softmax_ref.h"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {
namespace {

using In = MlaInputs;

using Vector = std::array<double, kMaxHeadSize>;

/// One query vector of one sequence.
struct Query {
  int64_t sequence, row, position, head;
};

/// The query as a token is cached: K_h^T qn [C], then qr [R].
template <typename W>
void absorb(const Launch& launch, const MlaShape& shape, const Query& query, const W* kv_b,
            double* out) {
  const Tensor& q = launch.in[In::kQ];
  const int64_t first = (query.row * shape.heads + query.head) * shape.q_size();
  std::fill_n(out, shape.latent_size, 0.0);
  for (int64_t d = 0; d < shape.nope_size; ++d) {
    const double factor = load_float(q.data, q.dtype, first + d);
    for (int64_t c = 0; c < shape.latent_size; ++c)
      out[c] += factor * double{widen(kv_b[d * shape.latent_size + c])};
  }
  for (int64_t d = 0; d < shape.rope_size; ++d)
    out[shape.latent_size + d] = load_float(q.data, q.dtype, first + shape.nope_size + d);
}

/// The weighted mean of latents, [C].
template <typename T>
void attend(const SequenceRows& sequences, const MlaShape& shape, double scale, const Query& query,
            const double* q, double* out) {
  SoftmaxMean mean(out, shape.latent_size);
  for (int64_t j = 0; j <= query.position; ++j) {
    const auto* cached = reinterpret_cast<const T*>(sequences.k(query.sequence, 0, j));
    mean.add(scale * dot_ref(q, cached, shape.cached()), cached);
  }
  mean.divide();
}

/// out [Dv] of one query.
void attend_query(const Launch& launch, const SequenceRows& sequences, const Query& query,
                  double* out) {
  const auto& a = launch.attrs<MlaAttention>();
  const MlaShape shape = mla_shape(a);
  const Tensor& kv_b = launch.in[In::kKvB];
  Vector q, mean;
  with_float_type(kv_b.dtype, [&]<typename W>(TypeTag<W>) {
    const W* rows = kv_b.as<W>() + query.head * (a.nope_size + a.v_size) * a.latent_size;
    absorb(launch, shape, query, rows, q.data());
    with_float_type(sequences.cache->dtype, [&]<typename T>(TypeTag<T>) {
      attend<T>(sequences, shape, a.scale, query, q.data(), mean.data());
    });
    for (int64_t d = 0; d < a.v_size; ++d)
      out[d] = dot_ref(mean.data(), rows + (a.nope_size + d) * a.latent_size, a.latent_size);
  });
}

}  // namespace

void mla_attention_ref(const Launch& launch) {
  const auto& a = launch.attrs<MlaAttention>();
  const SequenceRows beams = mla_sequences(launch, RequestType::kGeneration);
  const SequenceRows prompts = mla_sequences(launch, RequestType::kContext);
  const Tensor& out = launch.out[0];
  for (int64_t s = 0; s < prompts.num_sequences; ++s) {
    const SequenceRows& sequences = prompts.is(s, RequestType::kContext) ? prompts : beams;
    const int64_t first = sequences.first_position(s);
    launch.pool().parallel_for(int64_t{sequences.query_length[s]} * a.heads, [&](int64_t task) {
      const int64_t i = task / a.heads;
      const Query query{s, sequences.query_start[s] + i, first + i, task % a.heads};
      Vector result;
      attend_query(launch, sequences, query, result.data());
      const int64_t at = (query.row * a.heads + query.head) * a.v_size;
      for (int64_t d = 0; d < a.v_size; ++d)
        store_float(out.data, out.dtype, at + d,
                    static_cast<float>(result[static_cast<size_t>(d)]));
    });
  }
}

double mla_attention_exact(const Launch& launch, int64_t index) {
  const auto& a = launch.attrs<MlaAttention>();
  const SequenceRows beams = mla_sequences(launch, RequestType::kGeneration);
  const SequenceRows prompts = mla_sequences(launch, RequestType::kContext);
  const int64_t head = index / a.v_size % a.heads;
  const int64_t row = index / a.v_size / a.heads;
  for (int64_t s = 0; s < prompts.num_sequences; ++s) {
    const SequenceRows& sequences = prompts.is(s, RequestType::kContext) ? prompts : beams;
    const int64_t i = row - sequences.query_start[s];
    if (i < 0 || i >= sequences.query_length[s]) continue;
    Vector result;
    attend_query(launch, sequences, {s, row, sequences.first_position(s) + i, head}, result.data());
    return result[static_cast<size_t>(index % a.v_size)];
  }
  return NAN;
}

}  // namespace millrace::ops
