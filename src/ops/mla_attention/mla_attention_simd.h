// mla_attention by vectors of type V. Tiles of keys begin at multiples of kTile from position 0 on
// and come in order, so that a row's bits depend neither on the batch nor on how its prompt was
// cut. Which form a row takes follows from the phase of its sequence.
#pragma once

#include <algorithm>
#include <cmath>

#include "base/thread_pool.h"
#include "ops/common/float_types.h"
#include "ops/common/vec_loops.h"
#include "ops/common/vec_math.h"
#include "ops/mla_attention/mla_attention_simd_sizes.h"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {

/// The running softmax of one query.
template <typename V>
struct MlaSoftmax {
  float largest = -INFINITY;
  float total = 0;

  /// Logits of a tile become weights relative to the largest so far, 0 from `count` on. Returns the
  /// factor for what was summed before.
  float weigh(float (&logits)[kMlaTile], int64_t count) {
    std::fill(logits + count, logits + kMlaTile, -INFINITY);
    const float now = std::max(largest, *std::max_element(logits, logits + count));
    const float correction = std::exp(largest - now);
    V sums = V::zero();
    for (int64_t j = 0; j < kMlaTile; j += V::kWidth) {
      const V weight = vec_exp(V::load(logits + j) - V::set(now));
      weight.store(logits + j);
      sums = sums + weight;
    }
    largest = now;
    total = total * correction + sum(sums);
    return correction;
  }
};

/// The sum of weights[j] * row(j)[i ..], j < count: four chains, added in a fixed order.
template <typename V, typename Row, typename Lanes>
V mla_weighted_sum(const float* weights, int64_t count, const Row& row, int64_t i, Lanes lanes) {
  V sums[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) {
    for (int64_t chain = 0; chain < 4; ++chain) {
      sums[chain] =
          fma(V::set(weights[j + chain]), load<V>(row(j + chain) + i, lanes), sums[chain]);
    }
  }
  for (; j < count; ++j)
    sums[0] = fma(V::set(weights[j]), load<V>(row(j) + i, lanes), sums[0]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

template <typename V, typename T>
float mla_dot(const float* a, const T* b, int64_t size) {
  V even = V::zero(), odd = V::zero();
  int64_t i = 0;
  for (; i + 2 * V::kWidth <= size; i += 2 * V::kWidth) {
    even = fma(V::load(a + i), V::load(b + i), even);
    odd = fma(V::load(a + i + V::kWidth), V::load(b + i + V::kWidth), odd);
  }
  for_vectors<V>(size - i, [&](int64_t rest, auto lanes) {
    even = fma(load<V>(a + i + rest, lanes), load<V>(b + i + rest, lanes), even);
  });
  return sum(even + odd);
}

/// One launch: T is the cache's type, W that of kv_b.
template <typename V, typename T, typename W>
class MlaRows {
 public:
  explicit MlaRows(const Launch& launch)
      : a_(launch.attrs<MlaAttention>()),
        shape_(mla_shape(a_)),
        sequences_(mla_sequences(launch, RequestType::kContext)),
        beams_(mla_sequences(launch, RequestType::kGeneration)),
        q_(launch.in[MlaInputs::kQ].as<float>()),
        kv_b_(launch.in[MlaInputs::kKvB].as<W>()),
        out_(launch.out[0].as<float>()),
        softmax_(static_cast<MlaSoftmax<V>*>(launch.workspace)),
        total_rows_(launch.out[0].dim(0)),
        pool_(launch.pool()) {}

  void run() const {
    for (int64_t s = 0; s < sequences_.num_sequences; ++s) {
      const int64_t rows = sequences_.query_length[s];
      if (sequences_.is(s, RequestType::kContext)) {
        if (rows > 0) pool_.parallel_for(a_.heads, [&](int64_t head) { expanded(s, head); });
      } else {
        pool_.parallel_for(rows * a_.heads,
                           [&](int64_t i) { absorbed(s, i / a_.heads, i % a_.heads); });
      }
    }
  }

 private:
  static const T* cached(const SequenceRows& rows, int64_t sequence, int64_t position) {
    return reinterpret_cast<const T*>(rows.k(sequence, 0, position));
  }
  /// Row d of K_h, or of V_h.
  const W* key_weight(int64_t head, int64_t d) const {
    return kv_b_ + (head * (a_.nope_size + a_.v_size) + d) * a_.latent_size;
  }
  const W* value_weight(int64_t head, int64_t d) const {
    return key_weight(head, a_.nope_size + d);
  }
  const float* query(int64_t row, int64_t head) const {
    return q_ + (row * a_.heads + head) * shape_.q_size();
  }
  float* out_row(int64_t row, int64_t head) const {
    return out_ + (row * a_.heads + head) * a_.v_size;
  }

  // ---- one query ----

  void absorbed(int64_t sequence, int64_t i, int64_t head) const {
    const int64_t row = sequences_.query_start[sequence] + i;
    const int64_t keys = sequences_.first_position(sequence) + i + 1, latent = a_.latent_size;
    float q[kMlaMaxCached], mean[kMlaMaxCached];  // as a token is cached; sums of latents
    const float* from = query(row, head);
    for_vectors<V>(latent, [&](int64_t c, auto lanes) {
      const auto weight = [&](int64_t d) { return key_weight(head, d); };
      store(mla_weighted_sum<V>(from, a_.nope_size, weight, c, lanes), q + c, lanes);
    });
    std::copy_n(from + a_.nope_size, a_.rope_size, q + latent);
    std::fill_n(mean, latent, 0.0F);
    MlaSoftmax<V> softmax;
    for (int64_t tile = 0; tile < keys; tile += kMlaTile) {
      const int64_t count = std::min(kMlaTile, keys - tile);
      alignas(64) float weights[kMlaTile];
      const T* key[kMlaTile];
      for (int64_t j = 0; j < count; ++j) {
        key[j] = cached(beams_, sequence, tile + j);
        weights[j] = static_cast<float>(a_.scale) * mla_dot<V>(q, key[j], shape_.cached());
      }
      const V correction = V::set(softmax.weigh(weights, count));
      for_vectors<V>(latent, [&](int64_t c, auto lanes) {
        const auto key_at = [&](int64_t j) { return key[j]; };
        const V sums = mla_weighted_sum<V>(weights, count, key_at, c, lanes);
        store(fma(load<V>(mean + c, lanes), correction, sums), mean + c, lanes);
      });
    }
    for (int64_t d = 0; d < a_.v_size; ++d) {
      out_row(row, head)[d] = mla_dot<V>(mean, value_weight(head, d), latent) / softmax.total;
    }
  }

  // ---- many queries of one head ----

  /// Keys of a tile, made for one head.
  struct Tile {
    alignas(64) float latents[kMlaMaxCached][kMlaTile];  // [C+R, keys]
    alignas(64) float keys[kMlaMaxHead][kMlaTile];       // [Dn+R, keys]
    alignas(64) float values[kMlaTile][kMlaMaxHead];     // [keys, Dv]
  };

  void expanded(int64_t sequence, int64_t head) const {
    const int64_t rows = sequences_.query_length[sequence];
    const int64_t first = sequences_.first_position(sequence), keys = first + rows;
    const int64_t first_row = sequences_.query_start[sequence];
    MlaSoftmax<V>* softmax = softmax_ + head * total_rows_ + first_row;
    for (int64_t i = 0; i < rows; ++i) {
      softmax[i] = {};
      std::fill_n(out_row(first_row + i, head), a_.v_size, 0.0F);
    }
    Tile tile;
    for (int64_t begin = 0; begin < keys; begin += kMlaTile) {
      fill_tile(sequence, head, begin, std::min(kMlaTile, keys - begin), &tile);
      for (int64_t i = std::max<int64_t>(0, begin - first); i < rows; ++i) {
        const int64_t visible = std::min(kMlaTile, first + i + 1 - begin);
        add_tile(tile, query(first_row + i, head), visible, &softmax[i],
                 out_row(first_row + i, head));
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      float* out = out_row(first_row + i, head);
      for (int64_t d = 0; d < a_.v_size; ++d)
        out[d] /= softmax[i].total;
    }
  }

  void fill_tile(int64_t sequence, int64_t head, int64_t begin, int64_t count, Tile* tile) const {
    for (int64_t j = 0; j < kMlaTile; ++j) {
      alignas(64) float row[kMlaMaxCached] = {};  // zeros behind the last key
      if (j < count) {
        const T* from = cached(sequences_, sequence, begin + j);
        for_vectors<V>(shape_.cached(), [&](int64_t c, auto lanes) {
          store(load<V>(from + c, lanes), row + c, lanes);
        });
      }
      for (int64_t c = 0; c < shape_.cached(); ++c)
        tile->latents[c][j] = row[c];
    }
    expand(key_weight(head, 0), a_.nope_size, *tile,
           [&](int64_t d, const float* made) { std::copy_n(made, kMlaTile, tile->keys[d]); });
    for (int64_t r = 0; r < a_.rope_size; ++r)
      std::copy_n(tile->latents[a_.latent_size + r], kMlaTile, tile->keys[a_.nope_size + r]);
    expand(value_weight(head, 0), a_.v_size, *tile, [&](int64_t d, const float* made) {
      for (int64_t j = 0; j < kMlaTile; ++j)
        tile->values[j][d] = made[j];
    });
  }

  /// `take(d, [keys])` for rows d of `weight` [rows, C] times the tile's latents.
  template <typename Take>
  void expand(const W* weight, int64_t rows, const Tile& tile, const Take& take) const {
    constexpr int kRows = V::kWidth == 16 ? 6 : 2;  // as many as leave registers for the sums
    int64_t d = 0;
    for (; d + kRows <= rows; d += kRows)
      expand_rows<kRows>(weight + d * a_.latent_size, d, tile, take);
    for (; d < rows; ++d)
      expand_rows<1>(weight + d * a_.latent_size, d, tile, take);
  }

  template <int kRows, typename Take>
  void expand_rows(const W* weight, int64_t first, const Tile& tile, const Take& take) const {
    constexpr int64_t kVectors = 4;  // of keys at a time
    alignas(64) float made[kRows][kMlaTile];
    for (int64_t j = 0; j < kMlaTile; j += kVectors * V::kWidth) {
      V sums[kRows][kVectors];
      for (int r = 0; r < kRows; ++r) {
        for (int64_t v = 0; v < kVectors; ++v)
          sums[r][v] = V::zero();
      }
      for (int64_t c = 0; c < a_.latent_size; c += V::kWidth)
        add_products<kRows, kVectors>(weight, c, tile, j, sums);
      for (int r = 0; r < kRows; ++r) {
        for (int64_t v = 0; v < kVectors; ++v)
          sums[r][v].store(made[r] + j + v * V::kWidth);
      }
    }
    for (int r = 0; r < kRows; ++r)
      take(first + r, made[r]);
  }

  /// Elements [c, c + kWidth) of the latents.
  template <int kRows, int64_t kVectors>
  void add_products(const W* weight, int64_t c, const Tile& tile, int64_t j,
                    V (&sums)[kRows][kVectors]) const {
    const int64_t count = std::min(V::kWidth, a_.latent_size - c);
    alignas(64) float wide[kRows][V::kWidth];
    for (int r = 0; r < kRows; ++r) {
      const W* from = weight + r * a_.latent_size + c;
      (count == V::kWidth ? V::load(from) : V::load(from, count)).store(wide[r]);
    }
    for (int64_t i = 0; i < count; ++i) {
      V latents[kVectors];
      for (int64_t v = 0; v < kVectors; ++v)
        latents[v] = V::load(tile.latents[c + i] + j + v * V::kWidth);
      for (int r = 0; r < kRows; ++r) {
        const V factor = V::set(wide[r][i]);
        for (int64_t v = 0; v < kVectors; ++v)
          sums[r][v] = fma(factor, latents[v], sums[r][v]);
      }
    }
  }

  void add_tile(const Tile& tile, const float* q, int64_t visible, MlaSoftmax<V>* softmax,
                float* out) const {
    alignas(64) float weights[kMlaTile];
    for (int64_t j = 0; j < kMlaTile; j += V::kWidth) {
      const auto keys = [&](int64_t d) { return tile.keys[d]; };
      const V logits = mla_weighted_sum<V>(q, shape_.q_size(), keys, j, AllLanes{});
      (V::set(static_cast<float>(a_.scale)) * logits).store(weights + j);
    }
    const V correction = V::set(softmax->weigh(weights, visible));
    for_vectors<V>(a_.v_size, [&](int64_t d, auto lanes) {
      const auto values = [&](int64_t j) { return tile.values[j]; };
      const V sums = mla_weighted_sum<V>(weights, visible, values, d, lanes);
      store(fma(load<V>(out + d, lanes), correction, sums), out + d, lanes);
    });
  }

  const MlaAttention& a_;
  const MlaShape shape_;
  const SequenceRows sequences_, beams_;  // as prompts and as generation see them
  const float* q_;
  const W* kv_b_;
  float* out_;
  MlaSoftmax<V>* softmax_;  // [H, T], of rows of prompts
  const int64_t total_rows_;
  ThreadPool& pool_;
};

template <typename V>
void mla_attention_simd(const Launch& launch) {
  const auto* cache = launch.in[MlaInputs::kCache].as<KvCacheView>();
  with_float_type(cache->dtype, [&]<typename T>(TypeTag<T>) {
    with_float_type(launch.in[MlaInputs::kKvB].dtype,
                    [&]<typename W>(TypeTag<W>) { MlaRows<V, T, W>(launch).run(); });
  });
}

}  // namespace millrace::ops
