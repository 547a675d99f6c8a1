// Attention of prompts on Hopper's asynchronous tensor cores, for queries, keys and values all bf16
// or all f16. A unit of work is the query rows (token, head) of some tokens of one sequence and of
// some heads that share a KV head, 64 to each warpgroup of a block. They pass over tiles of keys,
// whose edges are multiples of the tile from position 0 on, in order of position: a row's bits do
// not depend on what else is computed. One more warp copies the tiles into shared memory, two tiles
// ahead, and behind them those of the block's next unit. Logits, weights and sums are fp32 and stay
// in registers; weights are rounded to the type of the values for their product with them.
//
// The warpgroups take turns: while one starts its products, another one computes weights. Each
// starts the logits of a tile together with the values of the tile before.
//
// Two tactics compile it. attention_context_wgmma_cuda reads the blocks of the cache;
// mla_attention_expanded_cuda reads keys and values that it made of latents, see ExpandedArgs.
#pragma once

#include <algorithm>
#include <span>
#include <type_traits>

#include "device/cuda/tensor_map.h"
#include "ops/common/attention_cuda.cuh"
#include "ops/common/hopper.cuh"
#include "ops/common/tensor_core_cuda.cuh"

namespace millrace::ops::context {

inline constexpr int kStages = 2;      // tiles in shared memory
inline constexpr int kGroupRows = 64;  // query rows of a warpgroup
inline constexpr int kBoxSize = 64;    // elements of a head in a row of a box: 128 bytes
inline constexpr int kStep = 16;       // elements of the sum of one matrix instruction
inline constexpr int kAlignment = 1024;
inline constexpr float kLog2E = 1.44269504F;
inline constexpr float kSlack = 8;  // log2 of how far weights may exceed 1, see weigh()

/// A unit's query rows and the tiles of keys that they see: the first `sink_tiles`, then those from
/// window_tile on. Row r is head first_head + r % pack of token first_token + r / pack.
struct Unit {
  int sequence, first_head, kv_head;
  int first_token, tokens;  // tokens of the sequence in this step, from its first one on
  int row_start;            // the sequence's first row in the step
  int position, last;       // of the unit's first and last token
  int length;               // tokens in the cache
  int sinks, window_begin;  // some row sees positions below `sinks`, and from window_begin on
  int sink_tiles, window_tile, tiles;

  template <typename P>
  __device__ int begin(int i) const {
    return (i < sink_tiles ? i : i - sink_tiles + window_tile) * P::kTile;
  }
};

struct ContextArgs {
  AttentionArgs a;
  int sequences;   // of the context phase
  int groups;      // warpgroups that multiply
  int pack_shift;  // log2 of the heads of a unit
  int piece;       // tokens that one box of K or V holds

  __device__ int head_groups() const { return a.heads >> pack_shift; }
};

/// Keys and values that were made of latents, for some of the heads: `k` and `v` of the kernel are
/// [tokens, heads, 128] each. The tokens of a sequence follow each other, and the sequences too.
/// The last 64 elements of a key are the same for all heads: [tokens, 64].
struct ExpandedArgs : ContextArgs {
  int key_heads;  // those heads; a.heads are in a row of the output
  CUtensorMap shared_key;

  __device__ int head_groups() const { return key_heads; }
};

/// Sizes that follow from the head's. Shared memory holds Q [kKeyBoxes, kRows, 64], then kStages
/// times K [kKeyBoxes, kTile, 64] and kStages times V [kValueBoxes, kTile, 64], the barriers, and
/// two units.
template <int kKeySize_, int kValueSize_, typename Args_>
struct Plan {
  using Args = Args_;
  static constexpr bool kExpanded = std::is_same_v<Args, ExpandedArgs>;
  static constexpr int kKeySize = kKeySize_, kValueSize = kValueSize_;
  static constexpr int kGroups = kKeySize == 64 ? 3 : 2;  // warpgroups that multiply, at most
  static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kTile = kKeySize == 256 ? 64 : 128;
  static constexpr int kKeyBoxes = kKeySize / kBoxSize, kValueBoxes = kValueSize / kBoxSize;
  static constexpr int kQueryBoxBytes = kRows * kBoxSize * 2;
  static constexpr int kQueryBytes = kKeyBoxes * kQueryBoxBytes;
  static constexpr int kBoxBytes = kTile * hopper::kSwizzledRow;  // of K and V
  static constexpr int kKeyBytes = kKeyBoxes * kBoxBytes, kValueBytes = kValueBoxes * kBoxBytes;
  static constexpr int kTiles = 2 * kStages;
  static constexpr int kBarriers = kQueryBytes + kStages * (kKeyBytes + kValueBytes);
  static constexpr int kUnits = kBarriers + (2 + 2 * kTiles) * 8;
  static constexpr int kShared = kAlignment + kUnits + 2 * static_cast<int>(sizeof(Unit));
  static_assert(kShared <= 227 * 1024);
  // Of the registers of a thread that a block starts with, as many as fit: few for the copying
  // warpgroup, the rest for the others. One too many, and they wait for each other for ever.
  static constexpr int kFirstRegisters = 65536 / ((kGroups + 1) * hopper::kWarpgroup) / 8 * 8;
  static constexpr int kCopyRegisters = kGroups == 2 ? 24 : 32;
  static constexpr int kRegisters = kGroups == 2 ? 240 : 160;
  static_assert(kGroups * kRegisters + kCopyRegisters <= (kGroups + 1) * kFirstRegisters);
};

/// Addresses in shared memory. Plane 0 is K, plane 1 is V.
template <typename P>
struct Buffers {
  uint32_t base;
  Unit* units;  // the one whose queries are there, and the one before or after it

  __device__ uint32_t tile(int plane, unsigned stage) const {
    const uint32_t first = base + P::kQueryBytes;
    return plane == 0 ? first + stage * P::kKeyBytes
                      : first + kStages * P::kKeyBytes + stage * P::kValueBytes;
  }
  /// Over when the queries are there, and when all warps have used them.
  __device__ uint32_t queries_full() const { return base + P::kBarriers; }
  __device__ uint32_t queries_empty() const { return queries_full() + 8; }
  /// Over when a tile is there.
  __device__ uint32_t full(int plane, unsigned stage) const {
    return queries_full() + 8 * (2 + plane * kStages + stage);
  }
  /// Over when all warps have used it.
  __device__ uint32_t empty(int plane, unsigned stage) const {
    return full(plane, stage) + 8 * P::kTiles;
  }
};

/// The units of a block, one after the other: sequence by sequence, late tokens first since they
/// see most keys, dealt out to the blocks in turns that go forth and back.
template <typename P>
class Units {
 public:
  __device__ explicit Units(const typename P::Args& args)
      : args_(args), block_tokens_(args.groups * kGroupRows >> args.pack_shift) {}

  /// False when there are no more.
  __device__ bool next(Unit& unit) {
    const AttentionArgs& a = args_.a;
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    const int head_groups = args_.head_groups();
    const int at = round_ * blocks + (round_ % 2 == 0 ? block : blocks - 1 - block);
    ++round_;
    for (; sequence_ < args_.sequences; ++sequence_) {
      const int tokens = a.query_length[sequence_];
      const int token_groups = (tokens + block_tokens_ - 1) / block_tokens_;
      if (at < first_ + token_groups * head_groups) {
        const int i = at - first_;
        unit.tokens = tokens;
        unit.first_token = (token_groups - 1 - i / head_groups) * block_tokens_;
        unit.first_head = i % head_groups << args_.pack_shift;
        find_keys(unit);
        return true;
      }
      first_ += token_groups * head_groups;
      if constexpr (P::kExpanded) {
        if (tokens > 0) first_key_ += a.sequence_length[sequence_];
      }
    }
    return false;
  }

  /// Of the last unit's sequence, where keys of all sequences lie behind each other.
  __device__ int first_key() const { return first_key_; }

 private:
  __device__ void find_keys(Unit& u) const {
    const AttentionArgs& a = args_.a;
    u.sequence = sequence_;
    u.kv_head = u.first_head / a.group;
    u.row_start = a.query_start[sequence_];
    u.length = a.sequence_length[sequence_];
    u.position = u.length - u.tokens + u.first_token;
    u.last = u.position + min(block_tokens_, u.tokens - u.first_token) - 1;
    u.window_begin = static_cast<int>(a.window_begin(u.position));
    u.sinks = min(a.sink_tokens, u.window_begin);
    u.window_tile = u.window_begin / P::kTile;
    u.sink_tiles = min((u.sinks + P::kTile - 1) / P::kTile, u.window_tile);
    u.tiles = u.sink_tiles + u.last / P::kTile + 1 - u.window_tile;
  }

  const typename P::Args& args_;
  const int block_tokens_;
  int round_ = 0, sequence_ = 0;
  int first_ = 0;  // the number of the sequence's first unit
  int first_key_ = 0;
};

/// Copies queries, keys and values: one warp, whose lanes take a box each.
template <typename P>
class Copies {
 public:
  __device__ Copies(const typename P::Args& args, const Buffers<P>& buffers)
      : args_(args), buffers_(buffers), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  /// Lengths and block tables are there before the kernel before has ended: the first addresses are
  /// found while it drains.
  __device__ void run(const CUtensorMap& q, const CUtensorMap& k, const CUtensorMap& v) {
    Units<P> units(args_);
    int unit = 0;
    for (; units.next(unit_); ++unit) {
      if constexpr (P::kExpanded) first_key_ = units.first_key();
      find(unit_.template begin<P>(0));
      if (unit == 0) {
        hand_over(unit);
        device::wait_for_predecessor();
      }
      copy(0, k);
      if (unit > 0) hand_over(unit);
      copy_queries(q);
      copy(1, v);
      ++tile_;
      for (int i = 1; i < unit_.tiles; ++i, ++tile_) {
        find(unit_.template begin<P>(i));
        copy(0, k);
        copy(1, v);
      }
    }
    unit_.tiles = 0;
    hand_over(unit);
    if (lane_ == 0) hopper::arrive(buffers_.queries_full());
  }

 private:
  /// Tells the other warps about a unit, once they have used the queries of the one before: then
  /// they are also done with all of the one before that.
  __device__ void hand_over(int unit) const {
    hopper::wait_barrier(buffers_.queries_empty(), ~unit & 1);
    if (lane_ == 0) buffers_.units[unit % 2] = unit_;
  }

  __device__ void copy_queries(const CUtensorMap& map) const {
    const uint32_t full = buffers_.queries_full();
    if (lane_ == 0) hopper::arrive_expecting(full, args_.groups * kGroupRows * P::kKeySize * 2);
    __syncwarp();
    if (lane_ >= P::kKeyBoxes) return;
    hopper::copy_box(buffers_.base + lane_ * P::kQueryBoxBytes, map, full, lane_ * kBoxSize,
                     unit_.first_head, unit_.row_start + unit_.first_token);
  }

  /// Where this lane's piece of a tile lies. A piece that no row sees may have no block: it is
  /// taken from behind the end of a block, where the tensor map has zeros. Made keys are all there;
  /// behind those of a sequence stand others, or zeros.
  __device__ void find(int begin) {
    if constexpr (P::kExpanded) {
      slot_ = first_key_ + begin;
    } else {
      const int tokens_per_block = args_.a.tokens_per_block;
      const int position = begin + lane_ / P::kKeyBoxes * args_.piece;
      const bool visible = position <= unit_.last &&
                           (position + args_.piece > unit_.window_begin || position < unit_.sinks);
      const int entry = position / tokens_per_block;
      block_ = visible ? args_.a.blocks[unit_.sequence * args_.a.blocks_per_sequence + entry] : 0;
      slot_ = visible ? position - entry * tokens_per_block : tokens_per_block;
    }
  }

  __device__ void copy(int plane, const CUtensorMap& map) const {
    const int stage = tile_ % kStages, use = tile_ / kStages, box = lane_ % P::kKeyBoxes;
    const int token = lane_ / P::kKeyBoxes * args_.piece;
    const uint32_t full = buffers_.full(plane, stage);
    hopper::wait_barrier(buffers_.empty(plane, stage), ~use & 1);
    if (lane_ == 0) hopper::arrive_expecting(full, plane == 0 ? P::kKeyBytes : P::kValueBytes);
    __syncwarp();
    if constexpr (P::kExpanded) {
      const uint32_t to = buffers_.tile(plane, stage) + lane_ * P::kBoxBytes;
      if (lane_ < P::kValueBoxes) {  // as many of a key are its head's own
        hopper::copy_box(to, map, full, lane_ * kBoxSize, unit_.first_head, slot_);
      } else if (plane == 0 && lane_ == P::kValueBoxes) {
        hopper::copy_box(to, args_.shared_key, full, 0, slot_);
      }
    } else {
      if (token >= P::kTile) return;
      hopper::copy_box(
          buffers_.tile(plane, stage) + (box * P::kTile + token) * hopper::kSwizzledRow, map, full,
          box * kBoxSize, slot_, unit_.kv_head, block_);
    }
  }

  const typename P::Args& args_;
  const Buffers<P> buffers_;
  const int lane_;
  Unit unit_;
  int tile_ = 0;  // counted over all units
  int block_ = 0, slot_ = 0;
  int first_key_ = 0;
};

/// The first lane's, for all: the compiler keeps it in a uniform register, as products want it.
__device__ inline uint64_t uniform(uint64_t x) {
  return __shfl_sync(0xffffffffu, x, 0);
}
__device__ inline int uniform(int x) {
  return __shfl_sync(0xffffffffu, x, 0);
}

__device__ inline float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Four lanes with four words each: afterwards lane j has word j of each, in order of lanes.
__device__ inline void transpose_quad(uint32_t (&x)[4], int lane) {
  const bool odd = lane % 2 == 1, upper = lane % 4 >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? x[i] : x[i + 1], 1);
    (odd ? x[i] : x[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? x[i] : x[i + 2], 2);
    (upper ? x[i] : x[i + 2]) = other;
  }
}

/// One warpgroup's 64 rows. In fragments a thread has rows lane / 4 and lane / 4 + 8 of its warp's
/// 16, and of every 8 columns 2 * (lane % 4) and the one after.
template <typename T, typename P>
class Rows {
 public:
  __device__ Rows(const typename P::Args& args, const Buffers<P>& buffers, int group)
      : args_(args),
        buffers_(buffers),
        group_(group),
        warp_(static_cast<int>(threadIdx.x) % hopper::kWarpgroup / kWarp),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        first_row_(group * kGroupRows + warp_ * (kGroupRows / 4) + lane_ / 4),
        queries_(
            uniform(hopper::k_major(buffers.base + group * kGroupRows * hopper::kSwizzledRow))),
        keys_(uniform(hopper::k_major(buffers.tile(0, 0)))),
        values_(uniform(hopper::n_major(buffers.tile(1, 0), P::kBoxBytes))) {}

  __device__ void run() {
    if (group_ == args_.groups - 1) give_turn();
    for (int unit = 0;; ++unit) {
      hopper::wait_barrier(buffers_.queries_full(), unit & 1);
      unit_ = buffers_.units + unit % 2;
      tiles_ = uniform(unit_->tiles);
      if (tiles_ == 0) break;
      hiding_from_ = args_.a.window > 0 ? 0 : (position(group_ * kGroupRows) + 1) / P::kTile;
      attend();
      write();
      first_tile_ += static_cast<unsigned>(tiles_);
    }
    if (group_ == 0) take_turn();  // no arrivals are left over
  }

 private:
  using Logits = float[P::kTile / 2];
  using Weights = uint32_t[P::kTile / kStep][4];

  __device__ void attend() {
    Logits logits;
    Weights weights;
    float correction[2];
    const int tiles = tiles_;
    clear();
    wait_for(0, 0);
    hopper::start_products();
    start_logits(0, logits);
    hopper::commit_products();
    hopper::wait_products<0>();
    hopper::pin(logits);
    release_keys(0);
    weigh(0, logits, correction);
    pack(logits, weights);
    if (tiles > 1) wait_for(0, 1);
    for (int i = 1; i < tiles; ++i) {
      take_turn();
      hopper::start_products();
      start_logits(i, logits);
      hopper::commit_products();
      wait_for(1, i - 1);
      hopper::start_products();
      start_values(i - 1, weights);
      hopper::commit_products();
      give_turn();
      hopper::wait_products<1>();
      hopper::pin(logits);
      release_keys(i);
      const bool grown = weigh(i, logits, correction);
      // Here for the assembler too: it does not move the wait for the values up over a branch.
      if (i + 1 < tiles) wait_for(0, i + 1);
      hopper::wait_products<0>();
      hopper::pin(sums_);
      release(buffers_.empty(1, stage(i - 1)));
      pack(logits, weights);
      if (grown) scale_sums(correction);
    }
    wait_for(1, tiles - 1);
    clear_unused_values();
    hopper::start_products();
    start_values(tiles - 1, weights);
    hopper::commit_products();
    hopper::wait_products<0>();
    hopper::pin(sums_);
    release(buffers_.empty(1, stage(tiles - 1)));
  }

  __device__ void clear() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      shift_[r] = -INFINITY;
      total_[r] = 0;
    }
#pragma unroll
    for (float& sum : sums_)
      sum = 0;
  }

  /// Tiles are counted over all units.
  __device__ unsigned stage(int i) const { return (first_tile_ + i) % kStages; }
  __device__ void wait_for(int plane, int i) const {
    const unsigned use = (first_tile_ + i) / kStages;
    hopper::wait_barrier(buffers_.full(plane, stage(i)), static_cast<int>(use & 1));
  }
  __device__ void release(uint32_t empty) const {
    if (lane_ == 0) hopper::arrive(empty);
  }
  __device__ void release_keys(int i) const {
    release(buffers_.empty(0, stage(i)));
    if (i + 1 == tiles_) release(buffers_.queries_empty());
  }

  /// Turns go round, group 0 first.
  __device__ void take_turn() const {
    if (args_.groups > 1) hopper::sync_named(1 + group_, 2 * hopper::kWarpgroup);
  }
  __device__ void give_turn() const {
    const int next = group_ + 1 == args_.groups ? 0 : group_ + 1;
    if (args_.groups > 1) hopper::arrive_named(1 + next, 2 * hopper::kWarpgroup);
  }

  /// logits [64, kTile] = Q K^T
  __device__ void start_logits(int i, Logits& logits) const {
    const uint64_t k = keys_ + stage(i) * (P::kKeyBytes >> 4);
#pragma unroll
    for (int step = 0; step < P::kKeySize / kStep; ++step) {
      constexpr int kSteps = kBoxSize / kStep;  // of a box
      const int box = step / kSteps, in_box = step % kSteps * kStep * 2;
      hopper::multiply<T, P::kTile, false>(logits,
                                           queries_ + ((box * P::kQueryBoxBytes + in_box) >> 4),
                                           k + ((box * P::kBoxBytes + in_box) >> 4), step > 0);
    }
  }

  /// sums [64, kValueSize] += weights V
  __device__ void start_values(int i, const Weights& weights) {
    const uint64_t v = values_ + stage(i) * (P::kValueBytes >> 4);
#pragma unroll
    for (int step = 0; step < P::kTile / kStep; ++step) {
      hopper::multiply<T, P::kValueSize, true>(
          sums_, weights[step], v + ((step * kStep * hopper::kSwizzledRow) >> 4), true);
    }
  }

  __device__ int position(int row) const { return unit_->position + (row >> args_.pack_shift); }

  /// Logits of keys that a row does not see become -inf.
  __device__ void hide_keys(int begin, Logits& logits) const {
    const AttentionArgs& a = args_.a;
    const bool no_newer = begin + P::kTile - 1 <= position(group_ * kGroupRows);
    const bool no_older = a.window == 0 || begin > unit_->last - a.window;
    if (no_newer && no_older) return;
    const int column = begin + lane_ % 4 * 2;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int newest = position(first_row_ + 8 * r) - column;
      const int oldest = newest - a.window + 1, sinks = a.sink_tokens - column;
      const auto hide = [&](const auto& hidden) {
#pragma unroll
        for (int j = 0; j < P::kTile / 4; ++j) {
          float& logit = logits[j / 2 * 4 + 2 * r + j % 2];
          if (hidden(j / 2 * 8 + j % 2)) logit = -INFINITY;  // keys are counted from `column` on
        }
      };
      if (!no_newer) hide([&](int key) { return key > newest; });
      if (!no_older) hide([&](int key) { return key < oldest && key >= sinks; });
    }
  }

  /// Logits become weights: 2 to the power of what they exceed the row's shift by. The shift is the
  /// largest logit so far, or one before it as long as no weight exceeds 2^kSlack: then sums stay
  /// as they are, else `correction` is what they are to be scaled with. Before a row has seen a key
  /// its shift is -inf: infinities do not cancel. Shifts are rounded, so that a tile in which a row
  /// sees nothing leaves it as it is, bit for bit. Returns whether a row of this warp has a
  /// correction.
  __device__ bool weigh(int i, Logits& logits, float (&correction)[2]) {
    if (i >= hiding_from_) hide_keys(unit_->template begin<P>(i), logits);
    float largest[2][2], sum[2][2] = {};  // of this thread's even and odd columns
#pragma unroll
    for (int j = 0; j < 4; ++j)
      largest[j / 2][j % 2] = fmaxf(logits[j], logits[j + 4]);
#pragma unroll
    for (int j = 8; j < P::kTile / 2; ++j)
      largest[j % 4 / 2][j % 2] = fmaxf(largest[j % 4 / 2][j % 2], logits[j]);
    const float scale = args_.a.scale * kLog2E;
    float shift[2];
    bool grown = false;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = fmaxf(largest[r][0], largest[r][1]);
      x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
      x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
      x = __fmul_rn(x, scale);
      const bool grows = x - shift_[r] > kSlack;
      correction[r] = grows ? exp2_of(shift_[r] - x) : 1;
      if (grows) shift_[r] = x;
      shift[r] = shift_[r] == -INFINITY ? 0 : shift_[r];
      grown |= grows;
    }
#pragma unroll
    for (int j = 0; j < P::kTile / 2; ++j) {
      logits[j] = exp2_of(fmaf(logits[j], scale, -shift[j % 4 / 2]));
      sum[j % 4 / 2][j % 2] += logits[j];
    }
#pragma unroll
    for (int r = 0; r < 2; ++r)
      total_[r] = total_[r] * correction[r] + (sum[r][0] + sum[r][1]);
    return __any_sync(0xffffffffu, grown) != 0;
  }

  __device__ static void pack(const Logits& weights, Weights& packed) {
#pragma unroll
    for (int j = 0; j < P::kTile / 4; ++j)
      packed[j / 4][j % 4] = pack_pair<T>(weights[2 * j], weights[2 * j + 1]);
  }

  __device__ void scale_sums(const float (&correction)[2]) {
#pragma unroll
    for (int j = 0; j < P::kValueSize / 2; ++j)
      sums_[j] *= correction[j % 4 / 2];
  }

  /// Slots behind the sequence's last token may hold NaN, which a weight of 0 does not hide. Every
  /// warpgroup writes the zeros itself before it reads them.
  __device__ void clear_unused_values() const {
    const int i = unit_->tiles - 1;
    const int used = unit_->length - unit_->template begin<P>(i);
    if (used >= P::kTile) return;
    constexpr int kChunks = hopper::kSwizzledRow / 16;
    const uint32_t v = buffers_.tile(1, stage(i));
    for (int box = 0; box < P::kValueBoxes; ++box) {
      for (int at = used * kChunks + warp_ * kWarp + lane_; at < P::kTile * kChunks;
           at += hopper::kWarpgroup) {
        const uint32_t to = v + box * P::kBoxBytes + at * 16;
        asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
      }
    }
    hopper::order_before_async();
    hopper::sync_named(1 + P::kGroups + group_, hopper::kWarpgroup);
  }

  __device__ void write() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = total_[r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const int row = first_row_ + 8 * r;
      const int token = unit_->first_token + (row >> args_.pack_shift);
      const int head = unit_->first_head + (row & ((1 << args_.pack_shift) - 1));
      const float inverse = 1 / total_with_sink(args_.a, head, shift_[r], total);
      T* out = static_cast<T*>(args_.a.out) +
               (int64_t{unit_->row_start + token} * args_.a.heads + head) * P::kValueSize;
#pragma unroll
      for (int n = 0; n < P::kValueSize / 8; n += 4) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float* pair = sums_ + 4 * (n + j) + 2 * r;
          words[j] = pack_pair<T>(pair[0] * inverse, pair[1] * inverse);
        }
        transpose_quad(words, lane_);
        if (token < unit_->tokens) {
          *reinterpret_cast<uint4*>(out + (n + lane_ % 4) * 8) =
              uint4{words[0], words[1], words[2], words[3]};
        }
      }
    }
  }

  const typename P::Args& args_;
  const Buffers<P> buffers_;
  const int group_, warp_, lane_, first_row_;
  const uint64_t queries_, keys_, values_;  // matrix descriptors; of K and V: stage 0
  const Unit* unit_ = nullptr;
  int tiles_ = 0;
  int hiding_from_ = 0;      // in tiles before this one all rows see all keys
  unsigned first_tile_ = 0;  // the unit's, counted over all units
  float shift_[2];           // log2 of what weights and sums are divided by
  float total_[2];           // of this thread's columns; write() adds up the four threads of a row
  float sums_[P::kValueSize / 2];
};

/// Grid: as many blocks as there are multiprocessors, or units. Block: the warpgroups that multiply
/// and one that copies. T is bf16 or f16, or void: then args.a.type says which.
template <typename T, typename P>
__global__ void __launch_bounds__((P::kGroups + 1) * hopper::kWarpgroup, 1)
    attend_context_wgmma(const __grid_constant__ typename P::Args args,
                         const __grid_constant__ CUtensorMap q,
                         const __grid_constant__ CUtensorMap k,
                         const __grid_constant__ CUtensorMap v) {
  extern __shared__ std::byte shared[];
  const uint32_t start = hopper::address_in_shared(shared);
  const uint32_t base = (start + kAlignment - 1) / kAlignment * kAlignment;
  const Buffers<P> buffers{base, reinterpret_cast<Unit*>(shared + (base - start) + P::kUnits)};
  if (threadIdx.x == 0) {
    hopper::prefetch_map(q);
    hopper::prefetch_map(k);
    hopper::prefetch_map(v);
    if constexpr (P::kExpanded) hopper::prefetch_map(args.shared_key);
    const int users = args.groups * (hopper::kWarpgroup / kWarp);
    hopper::init_barrier(buffers.queries_full(), 1);
    hopper::init_barrier(buffers.queries_empty(), users);
    for (int i = 0; i < P::kTiles; ++i) {
      hopper::init_barrier(buffers.full(i / kStages, i % kStages), 1);
      hopper::init_barrier(buffers.empty(i / kStages, i % kStages), users);
    }
    hopper::publish_barriers();
  }
  __syncthreads();
  device::let_successor_start();
  const int group = uniform(static_cast<int>(threadIdx.x) / hopper::kWarpgroup);
  if (group == args.groups) {
    hopper::shrink_registers<P::kCopyRegisters>();
    if (threadIdx.x % hopper::kWarpgroup < kWarp) Copies<P>(args, buffers).run(q, k, v);
  } else {
    hopper::grow_registers<P::kRegisters>();
    device::wait_for_predecessor();
    if constexpr (!std::is_void_v<T>) {
      Rows<T, P>(args, buffers, group).run();
    } else if (args.a.type == ir::DType::kF16) {
      Rows<__half, P>(args, buffers, group).run();
    } else {
      Rows<__nv_bfloat16, P>(args, buffers, group).run();
    }
  }
}

/// Host code. Cuts query rows into units, as few rows to each as leave no unit waiting for another
/// one's end: sets args.groups, and returns how many units there are. `lengths` are the query
/// lengths of the sequences.
template <typename P>
int64_t cut_units(std::span<const int32_t> lengths, int head_groups, typename P::Args& args) {
  for (args.groups = 1;; ++args.groups) {
    const int tokens = args.groups * kGroupRows >> args.pack_shift;
    int64_t units = 0;
    for (const int32_t length : lengths)
      units += int64_t{(length + tokens - 1) / tokens} * head_groups;
    if (args.groups == P::kGroups || units <= device::multiprocessors()) return units;
  }
}

/// Host code. A box of Q holds a unit's tokens and heads.
template <typename T, typename P>
void attend_units(const device::Queue& queue, int64_t units, const typename P::Args& args,
                  const CUtensorMap& q, const CUtensorMap& k, const CUtensorMap& v) {
  constexpr auto* kKernel = attend_context_wgmma<T, P>;
  static const bool allowed = device::allow_shared("attend_context_wgmma", kKernel, P::kShared);
  static_cast<void>(allowed);
  const auto grid = static_cast<unsigned>(std::min<int64_t>(units, device::multiprocessors()));
  const unsigned threads = static_cast<unsigned>(args.groups + 1) * hopper::kWarpgroup;
  device::launch_kernel("attend_context_wgmma", queue, grid, threads,
                        static_cast<size_t>(P::kShared), kKernel, args, q, k, v);
}

}  // namespace millrace::ops::context
