// Results of some keys, which can be added, and the sizes of a kernel of
// attention_generation_mma_cuda. For .cu files.
#pragma once

#include <algorithm>

#include "ops/common/cuda_kernel.cuh"
#include "ops/common/generation_division.h"

namespace millrace::ops::generation {

inline constexpr float kLog2E = 1.44269504F;
inline constexpr unsigned kAll = 0xffffffffu;

/// Result of some keys for one query row, four elements of it. Logits are in powers of two.
struct Part {
  float largest = -INFINITY, total = 0;
  float4 sum = {0, 0, 0, 0};
};

/// Both but for the last bits. Infinity and 0 are each other's reciprocal.
__device__ inline float power_of_two(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ inline float reciprocal(float x) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
  return inverse;
}

/// What a part is multiplied by when the largest logit is `largest`: infinities do not cancel.
__device__ inline float weight_of(float own, float largest) {
  float weight;
  asm("ex2.approx.ftz.f32 %0, %1;"
      : "=f"(weight)
      : "f"(own - (largest == -INFINITY ? 0.0F : largest)));
  return weight;
}

/// Adds the keys of `next`. Every piece is added in the order of positions by this function, so
/// that the bits do not depend on the block that does it; nothing is left to be contracted.
__device__ inline void add_part(Part& to, const Part& next) {
  const float largest = fmaxf(to.largest, next.largest);
  const float a = weight_of(to.largest, largest), b = weight_of(next.largest, largest);
  to.largest = largest;
  to.total = fmaf(to.total, a, __fmul_rn(next.total, b));
  to.sum.x = fmaf(to.sum.x, a, __fmul_rn(next.sum.x, b));
  to.sum.y = fmaf(to.sum.y, a, __fmul_rn(next.sum.y, b));
  to.sum.z = fmaf(to.sum.z, a, __fmul_rn(next.sum.z, b));
  to.sum.w = fmaf(to.sum.w, a, __fmul_rn(next.sum.w, b));
}

/// Tiles in the ring of a warp: what keeps memory busy, and leaves room for all blocks.
constexpr int stages_of(int size, int column_tiles, int bytes) {
  if (bytes == 2) return size <= 64 ? 5 : size <= 96 ? 4 : 3;
  if (size <= 64) return 6;
  return size <= 128 && column_tiles == 1 ? 5 : 4;
}

/// Tiles that a warp adds together, where it has to widen them: one alone is a chain of
/// instructions that wait for each other.
inline constexpr int kTilesAtOnce = 2;

/// Sizes of a kernel for heads of kSize elements and 8 * kColumnTiles query rows, over a cache of
/// kBytes an element.
template <int kSize, int kColumnTiles, int kBytes = 2>
struct Sizes {
  static constexpr int kHeadSize = kSize, kColumns = kColumnTiles, kWarps = kQuarters;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kRows = 8 * kColumnTiles;
  static constexpr int kChunk = 16 / kBytes;      // elements that are copied at once
  static constexpr int kStride = kSize + kChunk;  // rows of a matrix lie in different banks
  static constexpr int kPlane = kTileKeys * kStride;
  static constexpr int kScales = kBytes == 1 ? 2 * kTileKeys * 4 : 0;  // bytes
  static constexpr int kStage = 2 * kPlane + kScales;  // elements of a tile's K and V
  static constexpr int kStages = stages_of(kSize, kColumnTiles, kBytes);
  static constexpr int kAtOnce = kBytes == 1 && kSize <= 128 ? kTilesAtOnce : 1;
  static constexpr int kBlocks = blocks_on_multiprocessor(kSize);  // of them
  static constexpr int kSumStride = kSize + 4;                     // floats
  static constexpr int kSumBytes = kRows * kSumStride * 4;
  /// Where a stage has no room for a warp's sums, they lie behind the rings.
  static constexpr bool kSumsApart = kStage * kBytes < kSumBytes;
  static constexpr int kVectors = (kRows * kSize / 4 + kThreads - 1) / kThreads;  // of a thread
  static constexpr int kRingBytes = kWarps * kStages * kStage * kBytes;
  static constexpr int kTileBytes = kRingBytes + (kSumsApart ? kWarps * kSumBytes : 0);
  static constexpr int kQueryStride = kSize + 8;  // of rotated queries, of 16 bits

  /// Bytes from the beginning of a plane to an element of a key; and from one of the first elements
  /// of a key to one `steps` times 16 elements of 16 bits further on.
  __device__ static uint32_t at(int key, int element) {
    return static_cast<uint32_t>((key * kStride + element) * kBytes);
  }
  /// Bytes from the beginning of a warp's ring to the scales of a stage.
  __device__ static int scales_at(int /*warp*/, int stage) {
    return (stage * kStage + 2 * kPlane) * kBytes;
  }
  __device__ static uint32_t columns_on(uint32_t address, int steps) {
    return address + static_cast<uint32_t>(steps) * 32;
  }

  /// With the rotated queries [rows, kQueryStride] of a unit.
  static constexpr int shared_bytes(int rows) { return kTileBytes + rows * kQueryStride * 2; }

  /// Of one partial result: sums [rows, kSize], then (largest, total) [rows].
  __host__ __device__ static constexpr int partial_floats(int rows) { return rows * (kSize + 2); }
};

/// Tiles in the ring of a warp that the copy engine fills.
constexpr int box_stages_of(int size, int bytes) {
  if (bytes == 2) return size <= 64 ? 4 : 2;
  return size <= 64 ? 8 : 5;
}

/// Of a ring whose tiles the copy engine writes: boxes of up to 128 bytes of 16 keys, whose 16-byte
/// chunks change places by key, so that those that are read at once lie in different banks. Scales
/// lie behind the rings of all warps.
template <int kSize, int kBytes, int kColumnTiles = 1>
struct BoxSizes : Sizes<kSize, kColumnTiles, kBytes> {
  using Base = Sizes<kSize, kColumnTiles, kBytes>;
  static constexpr int kBoxRow = std::min(kSize * kBytes, 128);  // bytes
  static constexpr int kBoxBytes = kTileKeys * kBoxRow;
  static constexpr int kPlane = kTileKeys * kSize;
  static constexpr int kStage = 2 * kPlane;
  static constexpr int kStageBytes = kStage * kBytes;
  static constexpr int kStages = box_stages_of(kSize, kBytes);
  static constexpr int kTilesBytes = kStages * kStageBytes;  // of a warp
  static constexpr int kRingBytes = kQuarters * (kTilesBytes + kStages * Base::kScales);

  __device__ static uint32_t at(int key, int element) {
    const int byte = element * kBytes;
    const int place = kBoxRow == 128 ? key % 8 : key / 2 % 4;
    const int chunk = byte % kBoxRow / 16 ^ place;
    return static_cast<uint32_t>(byte / kBoxRow * kBoxBytes + key * kBoxRow + chunk * 16 +
                                 byte % 16);
  }
  __device__ static uint32_t columns_on(uint32_t address, int steps) {
    constexpr int kSteps = kBoxRow / 32;
    return (address ^ static_cast<uint32_t>(steps % kSteps * 32)) +
           static_cast<uint32_t>(steps / kSteps * kBoxBytes);
  }
  __device__ static int scales_at(int warp, int stage) {
    return (kQuarters - warp) * kTilesBytes + (warp * kStages + stage) * Base::kScales;
  }
};

}  // namespace millrace::ops::generation
