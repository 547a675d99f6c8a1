// What a warp does with tiles of 16 keys: it adds them to the sums of its query rows. These are the
// columns of the matrix instructions, 8 or 16: logits^T = K q^T, out^T = V^T weights^T.
//
// Tiles of 8 bits are copied as they are and widened to halves on their way to the products. The
// scale of a key multiplies its logits, that of a value its weights. For .cu files.
#pragma once

#include "ops/attention_generation/generation_unit_cuda.cuh"

namespace millrace::ops::generation {

__device__ inline uint32_t transposed(uint32_t matrix) {
  uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(matrix));
  return result;
}

/// ALiBi's slopes of a thread's columns, for logits in powers of two. Nothing where none are
/// wanted: there registers stay as they are.
template <int kColumnTiles, bool kBends>
struct Slopes {
  float slope_[kColumnTiles][2];
};
template <int kColumnTiles>
struct Slopes<kColumnTiles, false> {};

/// kBends: knows soft caps and ALiBi, too.
template <typename T, int kSize, int kColumnTiles, typename Stored,
          typename SizesOf = Sizes<kSize, kColumnTiles, static_cast<int>(sizeof(Stored))>,
          bool kBends = false>
class Tiles : public Unit<T, kSize, kColumnTiles, Stored, SizesOf>,
              private Slopes<kColumnTiles, kBends> {
 public:
  using Base = Unit<T, kSize, kColumnTiles, Stored, SizesOf>;
  using Base::kWidens;
  using typename Base::S;
  static constexpr int kAtOnce = S::kAtOnce;

  __device__ Tiles(const AttentionArgs& a, const Work& work, const Shares& shares,
                   std::byte* shared)
      : Base(a, work, shared), shares_(shares) {}

 protected:
  using Base::a_, Base::w_, Base::ring_, Base::lane, Base::warp;
  using Base::head_row, Base::step_row, Base::total_of, Base::is_bf16;
  using Base::position_, Base::q_, Base::q_unit_;

  __device__ void start_sums() {
    v_unit_ = kSmallestUnit;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        largest_[n][i] = -INFINITY;
        total_[n][i] = 0;
      }
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] = 0;
      }
    }
  }

  /// ALiBi's slopes of a unit's rows, where it is asked for. A lane finds that of one row.
  __device__ void find_slopes(const Walk& walk) {
    if (a_.alibi_max_bias == 0) return;
    const int head = step_row(walk, lane() % S::kRows).head;
    const float slope = alibi_slope(head, a_.heads, a_.alibi_max_bias) * kLog2E;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i)
        this->slope_[n][i] = __shfl_sync(kAll, slope, n * 8 + lane() % 4 * 2 + i);
    }
  }

  /// When all tiles have been added.
  __device__ void end_sums() {
    if constexpr (kHasScale<Stored>) scale_sums(v_unit_);
  }

  /// Which element of a head the sum [d, i] of a thread belongs to. Widened values are neighbours
  /// where others are 8 elements apart.
  __device__ static int element(int d, int i) {
    return kWidens ? d * 16 + lane() / 4 * 2 + i / 2 : d * 16 + i / 2 * 8 + lane() / 4;
  }

  /// The stage behind `stage`.
  __device__ static int after(int stage) { return stage + 1 == S::kStages ? 0 : stage + 1; }

  /// Adds `count` tiles, up to kAtOnce, whose copies have ended: in `stage` and those after it,
  /// from `tile` on, every kQuarters-th. Where one is missing the first stands for it, with no
  /// weight.
  __device__ void add_stages(int stage, int count, const SequencePlan& plan, int tile) {
    int stages[kAtOnce];
    float weights[kAtOnce][kColumnTiles][4];
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t)
      stages[t] = t == 0 || t >= count ? stage : after(stages[t - 1]);
    add_products(stages, weights);
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
      scale_products(stages[t], weights[t]);
      if constexpr (kBends) bend_logits(plan, tile + t * kQuarters, weights[t]);
      hide_keys(plan, tile + t * kQuarters, t < count, weights[t]);
    }
    weigh(weights);
    if constexpr (kHasScale<Stored>) scale_weights(stages, weights);
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t)
      add_values(plane(stages[t]) + S::kPlane, weights[t]);
    __syncwarp();
  }

  /// Partial result `slot` of a sharer, counted over all.
  __device__ int partial_number(unsigned sharer, int slot) const {
    return static_cast<int>(sharer) * w_.partial_slots + slot;
  }
  __device__ float* partial(int number) const {
    return w_.partials + int64_t{number} * S::partial_floats(w_.partial_rows);
  }

  /// Stores four elements of a partial result.
  __device__ void store_part(unsigned sharer, int slot, int row, int d, const Part& part) const {
    float* to = partial(partial_number(sharer, slot));
    *reinterpret_cast<float4*>(to + row * kSize + d) = part.sum;
    if (d == 0) {
      to += w_.partial_rows * kSize + row * 2;
      *reinterpret_cast<float2*>(to) = {part.largest, part.total};
    }
  }

  __device__ void write(const Walk& walk, int row, int d, const Part& part) const {
    const int64_t at = head_row(walk, row);
    const float factor = 1 / total_of(at, part.largest, part.total);
    *reinterpret_cast<uint2*>(static_cast<T*>(a_.out) + at * kSize + d) = {
        pack_result(part.sum.x * factor, part.sum.y * factor),
        pack_result(part.sum.z * factor, part.sum.w * factor)};
  }

  __device__ uint32_t pack_result(float low, float high) const {
    return pack_as(low, high, is_bf16());
  }

  /// Where the pieces of the unit lie: those of the sharer where it begins have been added up. One
  /// warp does it, a lane has a piece.
  __device__ void find_partials(const Walk& walk, unsigned home, int* partial, int* count) {
    const SequencePlan& plan = walk.plan;
    const int piece = lane();
    const unsigned owner =
        piece < plan.pieces
            ? shares_.owner(walk.unit_start + static_cast<unsigned>(piece * plan.piece_tiles))
            : home;
    const bool is_home = owner == home && piece < plan.pieces;
    const int at_home = __popc(__ballot_sync(kAll, is_home));
    if (owner != home) {
      const auto tile = static_cast<int>(shares_.begin(owner) - walk.unit_start);
      const int slot = piece - div_up(tile, plan.piece_tiles);
      partial[piece - at_home + 1] = partial_number(owner, slot);
    }
    if (piece == 0) {
      partial[0] = partial_number(home, w_.partial_slots - 1);
      *count = plan.pieces - at_home + 1;
    }
  }

  /// kGroups times four elements of a unit's result, group g from element d[g] of row[g] on, added
  /// over its `count` partial results: kAtOnce of them are on their way together, for all groups.
  template <int kAtOnce, int kGroups>
  __device__ void join_partials(const int* partials, int count, const int (&row)[kGroups],
                                const int (&d)[kGroups], Part (&sums)[kGroups]) const {
#pragma unroll 1
    for (int first = 0; first < count; first += kAtOnce) {
      Part parts[kAtOnce][kGroups];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        // Behind the last one stands the first one again, which is not added.
        const float* from = partial(partials[first + j < count ? first + j : 0]);
#pragma unroll
        for (int g = 0; g < kGroups; ++g) {
          const float* stats = from + w_.partial_rows * kSize + row[g] * 2;
          parts[j][g].sum = __ldcg(reinterpret_cast<const float4*>(from + row[g] * kSize + d[g]));
          parts[j][g].largest = __ldcg(stats);
          parts[j][g].total = __ldcg(stats + 1);
        }
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (first + j >= count) break;
#pragma unroll
        for (int g = 0; g < kGroups; ++g)
          add_part(sums[g], parts[j][g]);
      }
    }
  }

  /// Of one group.
  template <int kAtOnce>
  __device__ Part join_partials(const int* partials, int count, int row, int d) const {
    Part sum[1];
    join_partials<kAtOnce>(partials, count, {row}, {d}, sum);
    return sum[0];
  }

  /// Writes what a unit's `count` partial results are together. All threads of a block do it. With
  /// more rows a thread has several groups of elements: it waits for memory once for all. `count`
  /// is in shared memory, where it is read when it is wanted.
  __device__ void write_joined(const Walk& walk, int rows, const int* partials,
                               const int& count) const {
    constexpr int kTogether = kSize * kColumnTiles > 128 ? 4 : 8;
    constexpr int kGroups = kColumnTiles == 1 ? 1 : S::kVectors;
    const int groups = rows * (kSize / 4);
    for (int at = static_cast<int>(threadIdx.x); at < groups; at += kGroups * S::kThreads) {
      int row[kGroups], d[kGroups];
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const int group = at + g * S::kThreads < groups ? at + g * S::kThreads : at;
        row[g] = group / (kSize / 4);
        d[g] = group % (kSize / 4) * 4;
      }
      Part sums[kGroups];
      join_partials<kTogether>(partials, count, row, d, sums);
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        if (at + g * S::kThreads < groups) write(walk, row[g], d[g], sums[g]);
      }
    }
  }

  /// Counts pieces of the walk's unit, which begins at the sharer `home`, as stored; true if they
  /// are the last ones. For one thread, after what it and those that it met have stored.
  __device__ bool count_stored(const Walk& walk, unsigned home, int count) const {
    // What the others have stored is there after the count.
    unsigned* arrived = &arrivals[w_.queue][home];
    unsigned before;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(arrived), "r"(static_cast<unsigned>(count))
                 : "memory");
    const bool is_last =
        before + static_cast<unsigned>(count) == static_cast<unsigned>(walk.plan.pieces);
    if (is_last) *arrived = 0;  // for the next launch
    return is_last;
  }

  Shares shares_;
  float largest_[kColumnTiles][2], total_[kColumnTiles][2];
  float sums_[kColumnTiles][kSize / 16][4];

 private:
  __device__ void scale_sums(float factor) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] *= factor;
      }
    }
  }

  const __device__ Stored* plane(int stage) const { return ring_ + stage * S::kStage; }

  /// To logits in powers of two.
  __device__ void scale_products(int stage, float (&products)[kColumnTiles][4]) const {
    float k_scale[2] = {1, 1};
    if constexpr (kHasScale<Stored>) {
      k_scale[0] = this->scales_of(stage)[lane() / 4];
      k_scale[1] = this->scales_of(stage)[lane() / 4 + 8];
    }
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (kWidens) {
          products[n][i] *= q_unit_[n][i % 2] * k_scale[i / 2];
        } else {
          products[n][i] *= a_.scale * kLog2E;
        }
      }
    }
  }

  /// Products become what is more than scaled products, by a soft cap or ALiBi.
  __device__ void bend_logits(const SequencePlan& plan, int tile,
                              float (&logits)[kColumnTiles][4]) const {
    if (a_.plain_logits) return;
    if (a_.softcap > 0) cap_logits(logits);
    if (a_.alibi_max_bias == 0) return;
    const int key = plan.tile_begin(tile) + lane() / 4;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int distance = key + i / 2 * 8 - position_[n][i % 2];
        logits[n][i] = fmaf(static_cast<float>(distance), this->slope_[n][i % 2], logits[n][i]);
      }
    }
  }

  /// The soft cap c is one of natural logits x: c tanh(x / c) is c - 2 c / (1 + e^(2 x / c)). In
  /// powers of two a logit is x log2(e), and the power of e is 2^(2 / c) to that. The error is a
  /// few times c / 2^24, however small x is, which is nothing beside the rounding of weights.
  __device__ void cap_logits(float (&logits)[kColumnTiles][4]) const {
    const float rate = 2 * reciprocal(a_.softcap), cap = a_.softcap * kLog2E;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float power = power_of_two(logits[n][i] * rate);
        logits[n][i] = fmaf(-2 * cap, reciprocal(1 + power), cap);
      }
    }
  }

  /// In units of a power of two that is near the largest scale so far, so that halves hold them.
  __device__ void scale_weights(const int (&stages)[kAtOnce],
                                float (&weights)[kAtOnce][kColumnTiles][4]) {
    float v_scale[kAtOnce][2], largest = 0;
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
      const float* scales = this->scales_of(stages[t]) + kTileKeys + lane() / 4;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        v_scale[t][i] = scales[i * 8];
        largest = fmaxf(largest, v_scale[t][i]);
      }
    }
#pragma unroll
    for (int step = 4; step < kWarp; step *= 2)
      largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, step));
    const PowerOfTwo unit(fmaxf(largest, v_unit_));
    if (unit.value > v_unit_) {
      scale_sums(v_unit_ * unit.inverse());
      v_unit_ = unit.value;
    }
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          weights[t][n][i] *= v_scale[t][i / 2] * unit.inverse();
      }
    }
  }

  __device__ void add_products(const int (&stages)[kAtOnce],
                               float (&products)[kAtOnce][kColumnTiles][4]) const {
    const int matrix = lane() / 8;
    const uint32_t first = S::at(matrix % 2 * 8 + lane() % 8, matrix / 2 * S::kChunk);
    uint32_t packed[kAtOnce][4];
    float odd[kAtOnce][kColumnTiles][4];
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          products[t][n][i] = odd[t][n][i] = 0;
      }
    }
#pragma unroll
    for (int step = 0; step < kSize / 16; ++step) {
#pragma unroll
      for (int t = 0; t < kAtOnce; ++t) {
        const uint32_t k_at = shared_address_of(plane(stages[t])) + first;
        uint32_t keys[4];
        if constexpr (kWidens) {  // a load has the keys of two steps
          const int half = step % 2 * 2;
          if (half == 0) load_matrices(packed[t], S::columns_on(k_at, step / 2));
          widen_operand<Stored, Pairs::kNeighbours>(packed[t][half], packed[t][half + 1], keys);
        } else {
          load_matrices(keys, S::columns_on(k_at, step));
        }
#pragma unroll
        for (int n = 0; n < kColumnTiles; ++n)
          multiply_add<T>(step % 2 == 0 ? products[t][n] : odd[t][n], keys, q_[n][step]);
      }
    }
#pragma unroll
    for (int t = 0; t < kAtOnce; ++t) {
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          products[t][n][i] += odd[t][n][i];
      }
    }
  }

  /// Logits of keys that a row does not see become -inf. A thread has keys lane / 4 and lane / 4 +
  /// 8, columns lane % 4 * 2 and the one after.
  __device__ void hide_keys(const SequencePlan& plan, int tile, bool is_there,
                            float (&logits)[kColumnTiles][4]) const {
    const int begin = plan.tile_begin(tile);
    const int low = plan.low(tile), high = is_there ? plan.high(tile) : 0;
    const bool all_seen = begin >= low && begin + kTileKeys <= high &&
                          begin + kTileKeys <= plan.first_position + 1 &&
                          (a_.window == 0 || begin > plan.length - 1 - a_.window);
    if (all_seen) return;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = begin + lane() / 4 + i / 2 * 8;
        if (key < low || key >= high || !a_.sees(position_[n][i % 2], key)) {
          logits[n][i] = -INFINITY;
        }
      }
    }
  }

  /// Logits become weights; what was summed before is scaled down where a larger logit came.
  __device__ void weigh(float (&logits)[kAtOnce][kColumnTiles][4]) {
    float correction[kColumnTiles][2];
    bool is_scaled = false;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float largest = -INFINITY, total = 0;
#pragma unroll
        for (int t = 0; t < kAtOnce; ++t)
          largest = fmaxf(largest, fmaxf(logits[t][n][i], logits[t][n][i + 2]));
#pragma unroll
        for (int step = 4; step < kWarp; step *= 2)
          largest = fmaxf(largest, __shfl_xor_sync(kAll, largest, step));
        largest = fmaxf(largest, largest_[n][i]);
        correction[n][i] = weight_of(largest_[n][i], largest);
        is_scaled |= largest > largest_[n][i];
        largest_[n][i] = largest;
#pragma unroll
        for (int t = 0; t < kAtOnce; ++t) {
          logits[t][n][i] = weight_of(logits[t][n][i], largest);
          logits[t][n][i + 2] = weight_of(logits[t][n][i + 2], largest);
          const float both = logits[t][n][i] + logits[t][n][i + 2];
          total = t == 0 ? both : total + both;
        }
        total_[n][i] = fmaf(total_[n][i], correction[n][i], total);
      }
    }
    // A factor of 1 changes no bit, so rows do not feel what others need.
    if (!__any_sync(kAll, is_scaled)) return;
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
#pragma unroll
      for (int d = 0; d < kSize / 16; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums_[n][d][i] *= correction[n][i % 2];
      }
    }
  }

  __device__ void add_values(const Stored* v, const float (&weights)[kColumnTiles][4]) {
    const int matrix = lane() / 8;
    const int key = kWidens ? matrix % 2 * 8 : matrix / 2 * 8;
    const int first = kWidens ? matrix / 2 * S::kChunk : matrix % 2 * 8;  // element
    const uint32_t v_at = shared_address_of(v) + S::at(key + lane() % 8, first);
    uint32_t packed[4];
    uint32_t p[kColumnTiles][2];
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      p[n][0] = transposed(pack_pair<T>(weights[n][0], weights[n][1]));
      p[n][1] = transposed(pack_pair<T>(weights[n][2], weights[n][3]));
    }
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      uint32_t values[4];
      if constexpr (kWidens) {
        const int half = d % 2 * 2;
        if (half == 0) load_transposed(packed, S::columns_on(v_at, d / 2));
        widen_operand<Stored, Pairs::kAlternate>(packed[half], packed[half + 1], values);
      } else {
        load_transposed(values, S::columns_on(v_at, d));
      }
#pragma unroll
      for (int n = 0; n < kColumnTiles; ++n)
        multiply_add<T>(sums_[n][d], values, p[n]);
    }
  }

  float v_unit_ = kSmallestUnit;  // of 8 bits: a power of two that sums_ are to be multiplied by
};

}  // namespace millrace::ops::generation
