// What the three kernels of mla_attention_absorbed_cuda share: which rows of the step they have,
// how the keys of a row are cut, and how the workspace is laid out. For .cu files.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/host_device.h"
#include "ops/common/cuda_kernel.cuh"

namespace millrace::ops::absorbed {

inline constexpr int kNopeSize = 128, kRopeSize = 64, kLatentSize = 512, kValueSize = 128;
inline constexpr int kQuerySize = kNopeSize + kRopeSize;    // of a head
inline constexpr int kWeightRows = kNopeSize + kValueSize;  // of a head in kv_b
inline constexpr int kCached = kLatentSize + kRopeSize;     // elements of a token in the cache

/// Heads of a unit: the rows of matrix instructions.
inline constexpr int kUnitHeads = 16;
/// Elements of the sum of one matrix instruction, and how many make a product with a key.
inline constexpr int kStep = 16, kSteps = kCached / kStep;
inline constexpr int kTileKeys = 64;
inline constexpr int kMaxPieces = 128;
/// Rows of the step that one go has, at most.
inline constexpr int kMaxSlots = 256;

MILLRACE_HD constexpr int tiles_of(int keys) {
  return (keys + kTileKeys - 1) / kTileKeys;
}

/// Tiles of a piece of a row that sees so many keys. Nothing else decides.
MILLRACE_HD constexpr int piece_tiles(int keys) {
  int tiles = keys <= 1024 ? 1 : keys <= 2048 ? 2 : keys <= 8192 ? 4 : 8;
  while (tiles_of(keys) > kMaxPieces * tiles)
    tiles *= 2;
  return tiles;
}

MILLRACE_HD constexpr int pieces_of(int keys) {
  const int tiles = piece_tiles(keys);
  return (tiles_of(keys) + tiles - 1) / tiles;
}

/// The result of a piece for the heads of a unit: sums of weighted latents, [kUnitHeads,
/// kLatentSize], then the largest logit of each head and its sum of weights, [2, kUnitHeads].
/// Logits are in units of log2, weights are 2^(logit - largest).
inline constexpr int kPartialSums = kUnitHeads * kLatentSize;
inline constexpr int kPartialFloats = kPartialSums + 2 * kUnitHeads;

/// What one go computes: `slots` rows, from the first_slot-th of the sequences [first_sequence,
/// end_sequence), counted in their order. Slots behind the last row are empty.
struct Go {
  const int32_t* sequence_length;  // [S]
  const int32_t* query_start;      // [S]
  const int32_t* query_length;     // [S]
  int first_sequence, end_sequence;
  int first_slot, slots;
  int heads;
  int unit_pieces;    // partial results of a unit lie behind each other, at most so many
  bool is_bf16;       // activations, cache and kv_b; else f16
  uint32_t* queries;  // pairs of elements, see query_pair()
  float* partials;    // [slots, heads / kUnitHeads, unit_pieces, kPartialFloats]

  __device__ int groups() const { return heads / kUnitHeads; }
  __device__ float* partial(int slot, int group, int piece) const {
    return partials + ((int64_t{slot} * groups() + group) * unit_pieces + piece) * kPartialFloats;
  }
};

/// Where the elements (c, c + 1) of a slot's absorbed query lie, c even: [slots, groups, kSteps, 32
/// lanes, 4], so that a lane of attend_latents reads what it holds of a step (multiply_add()) at
/// once.
__device__ inline int64_t query_pair(const Go& go, int slot, int head, int c) {
  const int64_t unit = int64_t{slot} * go.groups() + head / kUnitHeads;
  const int lane = head % 8 * 4 + c % 8 / 2;
  const int part = head % kUnitHeads / 8 + c % kStep / 8 * 2;
  return ((unit * kSteps + c / kStep) * kWarp + lane) * 4 + part;
}

/// A row, and how many positions it sees.
struct SlotRow {
  int sequence, row, keys;
};

/// Calls visit(slot - begin, SlotRow) for the slots [begin, end) that have a row, each in one lane.
/// One whole warp calls it. What is read came with the step, so that it may be called at any time;
/// not from the first-level cache, where an earlier step may have left something.
template <typename F>
__device__ void find_rows(const Go& go, int begin, int end, const F& visit) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int low = go.first_slot + begin, high = go.first_slot + end;
  int before = 0;  // rows of the sequences before `first`
  for (int first = go.first_sequence; first < go.end_sequence && before < high; first += kWarp) {
    const int sequence = first + lane;
    int rows = 0, length = 0, first_row = 0;
    if (sequence < go.end_sequence) {  // one trip to memory for all
      rows = __ldcg(go.query_length + sequence);
      length = __ldcg(go.sequence_length + sequence);
      first_row = __ldcg(go.query_start + sequence);
    }
    int last = rows;  // becomes that of the sequences from `first` to this lane's
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, last, step);
      if (lane >= step) last += other;
    }
    const int start = before + last - rows;
    for (int i = max(start, low); i < min(start + rows, high); ++i)
      visit(i - low, SlotRow{sequence, first_row + i - start, length - rows + i - start + 1});
    before += __shfl_sync(0xffffffffu, last, kWarp - 1);
  }
}

/// Calls `function` with a value of the type of the launch.
template <typename F>
__device__ __forceinline__ void on_type(const Go& go, const F& function) {
  if (go.is_bf16) {
    function(__nv_bfloat16{});
  } else {
    function(__half{});
  }
}

}  // namespace millrace::ops::absorbed
