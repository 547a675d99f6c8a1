// Two kernels, both with weights of 16 KiB in shared memory that are fetched before the kernel
// waits for its predecessor, and with tiles of up to 16 rows of the step.
//
//   absorb   block (64 columns of K_h, head h, tiles)      [16, 128] x [128, 64]
//   expand   block (some 16 rows of V_h, head h, a tile)   [16, 512] x [16, 512]^T
//
// How many blocks share the tiles, or the rows of V_h, follows from the number of rows and changes
// no sum.
#include <algorithm>
#include <cmath>

#include "device/cuda/occupancy.h"
#include "ops/common/mma_tiles_cuda.cuh"
#include "ops/mla_attention/mla_absorbed_cuda.cuh"
#include "ops/mla_attention/mla_products_cuda.h"

namespace millrace::ops::absorbed {
namespace {

constexpr int kTileRows = 16;  // of the step

/// A matrix of 16-bit elements in shared memory: for each 64 columns its kRows rows of 128 bytes,
/// in which packs lie as stage_offset() says.
template <int kRows>
__device__ uint32_t matrix_offset(int row, int pack) {
  return static_cast<uint32_t>(pack / kPacks * kRows * kRowBytes) +
         stage_offset(row, pack % kPacks);
}

// ---- absorb ----

constexpr int kAbsorbThreads = 128;
constexpr int kColumns = 64;  // of a block: 16 for each warp
constexpr int kColumnBlocks = kLatentSize / kColumns;
static_assert(kColumns == kStageDepth && kAbsorbThreads / kWarp * 16 == kColumns);
/// Elements of qr that a block copies.
constexpr int kRopePart = kRopeSize / kColumnBlocks;
static_assert(kTileRows * kRopePart / 2 <= kAbsorbThreads);

struct AbsorbArgs {
  Go go;
  const std::byte* q;     // [T, H*(Dn+R)]
  const std::byte* kv_b;  // [H*(Dn+Dv), C]
};

struct AbsorbShared {
  std::byte weight[kNopeSize * kRowBytes];       // [Dn, kColumns]
  std::byte queries[kTileRows * kNopeSize * 2];  // [kTileRows, Dn]
  int rows[kTileRows];                           // of the step, or -1
};

struct Absorb {
  const AbsorbArgs& a;
  AbsorbShared& s;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int column_block = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);

  __device__ void stage_weight() const {
    const std::byte* from =
        a.kv_b + (int64_t{head} * kWeightRows * kLatentSize + column_block * kColumns) * 2;
    const uint32_t to = shared_address_of(s.weight);
    for (int i = thread; i < kNopeSize * kPacks; i += kAbsorbThreads) {
      const int d = i / kPacks, pack = i % kPacks;
      copy_async(to + stage_offset(d, pack), from + (d * kLatentSize * 2 + pack * 16));
    }
  }

  /// Of the first warp.
  __device__ void find_tile(int tile) const {
    if (lane < kTileRows) s.rows[lane] = -1;
    __syncwarp();
    const int begin = tile * kTileRows;
    find_rows(a.go, begin, min(begin + kTileRows, a.go.slots),
              [&](int i, const SlotRow& found) { s.rows[i] = found.row; });
  }

  const __device__ std::byte* query(int row) const {
    return a.q + (int64_t{row} * a.go.heads + head) * (kQuerySize * 2);
  }

  __device__ void stage_queries() const {
    constexpr int kQueryPacks = kNopeSize * 2 / 16;
    const uint32_t to = shared_address_of(s.queries);
    for (int i = thread; i < kTileRows * kQueryPacks; i += kAbsorbThreads) {
      const int r = i / kQueryPacks, pack = i % kQueryPacks;
      const bool inside = s.rows[r] >= 0;
      copy_async(to + matrix_offset<kTileRows>(r, pack), query(inside ? s.rows[r] : 0) + pack * 16,
                 inside);
    }
  }

  /// Queries times this block's columns, and its part of qr, which is only copied.
  template <typename T>
  __device__ void write_tile(int tile) const {
    float sums[2][4] = {};
    const uint32_t queries = shared_address_of(s.queries), weight = shared_address_of(s.weight);
#pragma unroll
    for (int k = 0; k < kNopeSize / kStep; ++k) {
      uint32_t x[4], w[4];
      load_matrices(x, queries + matrix_offset<kTileRows>(lane % 16, k * 2 + lane / 16));
      load_transposed(w, weight + stage_offset(k * kStep + lane % 16, warp * 2 + lane / 16));
      multiply_add<T>(sums[0], x, {w[0], w[1]});
      multiply_add<T>(sums[1], x, {w[2], w[3]});
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = lane / 4 + 8 * i;
      if (s.rows[r] < 0) continue;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int c = column_block * kColumns + warp * 16 + j * 8 + lane % 4 * 2;
        a.go.queries[query_pair(a.go, tile * kTileRows + r, head, c)] =
            pack_pair<T>(sums[j][2 * i], sums[j][2 * i + 1]);
      }
    }
    const int r = thread / (kRopePart / 2);
    if (r >= kTileRows || s.rows[r] < 0) return;
    const int d = column_block * kRopePart + thread % (kRopePart / 2) * 2;
    a.go.queries[query_pair(a.go, tile * kTileRows + r, head, kLatentSize + d)] =
        __ldcg(reinterpret_cast<const uint32_t*>(query(s.rows[r]) + (kNopeSize + d) * 2));
  }
};

/// Grid: blocks of columns, heads, blocks that share the tiles.
__global__ void __launch_bounds__(kAbsorbThreads)
    absorb_rows(const __grid_constant__ AbsorbArgs a) {
  __shared__ __align__(128) AbsorbShared shared;
  const Absorb absorb{a, shared};
  int tile = static_cast<int>(blockIdx.z);
  absorb.stage_weight();
  commit_copies();
  if (absorb.warp == 0) absorb.find_tile(tile);
  device::wait_for_predecessor();
  device::let_successor_start();  // not before: see attend_latents
  while (tile * kTileRows < a.go.slots) {
    __syncthreads();
    absorb.stage_queries();
    commit_copies();
    wait_for_copies<0>();
    __syncthreads();
    on_type(a.go, [&]<typename T>(T) { absorb.write_tile<T>(tile); });
    tile += static_cast<int>(gridDim.z);
    __syncthreads();
    if (absorb.warp == 0) absorb.find_tile(tile);
  }
}

// ---- expand ----

constexpr int kExpandThreads = 128;
constexpr int kBlocks = 6;  // on a multiprocessor: then one has room beside attend_latents
constexpr int kExpandWarps = kExpandThreads / kWarp;
constexpr int kValues = 16;  // rows of V_h at a time
constexpr int kValueBlocks = kValueSize / kValues;
constexpr int kQuads = kLatentSize / 4;
constexpr int kLoads = 16;  // of a thread at once, when pieces join
static_assert(kMaxPieces % kLoads == 0);
constexpr int kWarpSteps = kLatentSize / kExpandWarps / kStep;  // of the sum
static_assert(kQuads == kExpandThreads && kTileRows * kValues % kExpandThreads == 0);

struct ExpandArgs {
  Go go;
  const std::byte* kv_b;  // [H*(Dn+Dv), C]
  uint16_t* out;          // [T, H*Dv]
  int tile_rows;          // up to kTileRows
};

struct ExpandShared {
  std::byte latents[kTileRows * kLatentSize * 2];  // [kTileRows, C]: means
  std::byte weight[2][kValues * kLatentSize * 2];  // [kValues, C]
  union {
    float factors[kTileRows][kMaxPieces];          // of pieces in the mean
    float sums[kExpandWarps][kTileRows][kValues];  // parts of the products
  };
  int rows[kTileRows];  // of the step, or -1
  int pieces[kTileRows];
};

struct Expand {
  const ExpandArgs& a;
  ExpandShared& s;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp, lane = thread % kWarp;
  const int head = static_cast<int>(blockIdx.y);
  const int first_slot = static_cast<int>(blockIdx.z) * a.tile_rows;

  __device__ void stage_weight(int value_block, int buffer) const {
    constexpr int kRowPacks = kLatentSize * 2 / 16;
    const std::byte* from =
        a.kv_b +
        (int64_t{head} * kWeightRows + kNopeSize + value_block * kValues) * (kLatentSize * 2);
    const uint32_t to = shared_address_of(s.weight[buffer]);
    for (int i = thread; i < kValues * kRowPacks; i += kExpandThreads) {
      copy_async(to + matrix_offset<kValues>(i / kRowPacks, i % kRowPacks), from + i * 16);
    }
  }

  /// Of the first warp.
  __device__ void find_tile() const {
    if (lane < kTileRows) s.rows[lane] = -1;
    __syncwarp();
    find_rows(a.go, first_slot, min(first_slot + a.tile_rows, a.go.slots),
              [&](int i, const SlotRow& found) {
                s.rows[i] = found.row;
                s.pieces[i] = pieces_of(found.keys);
              });
  }

  /// What the sums of each piece are multiplied by in a row's mean. A warp has every fourth row.
  __device__ void weigh_pieces() const {
    constexpr int kLanePieces = kMaxPieces / kWarp;
    for (int r = warp; r < a.tile_rows; r += kExpandWarps) {
      if (s.rows[r] < 0) continue;
      const int pieces = s.pieces[r];
      const float* own =
          a.go.partial(first_slot + r, head / kUnitHeads, 0) + kPartialSums + head % kUnitHeads;
      float largest[kLanePieces], total[kLanePieces];
      float most = -INFINITY;
#pragma unroll
      for (int i = 0; i < kLanePieces; ++i) {
        const int piece = lane + i * kWarp;
        largest[i] = -INFINITY;
        total[i] = 0;
        if (piece < pieces) {
          largest[i] = __ldcg(own + int64_t{piece} * kPartialFloats);
          total[i] = __ldcg(own + int64_t{piece} * kPartialFloats + kUnitHeads);
        }
        most = fmaxf(most, largest[i]);
      }
      most = warp_max(most);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kLanePieces; ++i) {
        largest[i] = exp2f(largest[i] - most);
        sum = fmaf(largest[i], total[i], sum);
      }
      sum = warp_sum(sum);
#pragma unroll
      for (int i = 0; i < kLanePieces; ++i)
        s.factors[r][lane + i * kWarp] = largest[i] / sum;
    }
  }

  /// Rows' means of latents to shared memory, four elements to a thread. Rows that are not there
  /// keep what lies there: it only reaches sums that are not written.
  template <typename T>
  __device__ void join_pieces() const {
    const int quad = thread;
    for (int r = 0; r < a.tile_rows; ++r) {
      if (s.rows[r] < 0) continue;
      const auto* own =
          reinterpret_cast<const float4*>(a.go.partial(first_slot + r, head / kUnitHeads, 0) +
                                          head % kUnitHeads * kLatentSize) +
          quad;
      const int pieces = s.pieces[r];
      float4 sum{};
      for (int first = 0; first < pieces; first += kLoads) {
        float4 parts[kLoads];  // on their way together; factors behind the last piece are zeros
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          parts[i] = first + i < pieces ? __ldcg(own + int64_t{first + i} * (kPartialFloats / 4))
                                        : float4{};
        }
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const float factor = s.factors[r][first + i];
          sum.x = fmaf(factor, parts[i].x, sum.x);
          sum.y = fmaf(factor, parts[i].y, sum.y);
          sum.z = fmaf(factor, parts[i].z, sum.z);
          sum.w = fmaf(factor, parts[i].w, sum.w);
        }
      }
      std::byte* to = s.latents + matrix_offset<kTileRows>(r, quad / 2) + quad % 2 * 8;
      *reinterpret_cast<uint2*>(to) = {pack_pair<T>(sum.x, sum.y), pack_pair<T>(sum.z, sum.w)};
    }
  }

  /// This warp's part of the sums of a block of values.
  template <typename T>
  __device__ void multiply(int buffer) const {
    float sums[2][4] = {};
    const uint32_t latents = shared_address_of(s.latents);
    const uint32_t weight = shared_address_of(s.weight[buffer]);
#pragma unroll
    for (int k = 0; k < kWarpSteps; ++k) {
      const int pack = (warp * kWarpSteps + k) * 2;
      uint32_t x[4], w[4];
      load_matrices(x, latents + matrix_offset<kTileRows>(lane % 16, pack + lane / 16));
      load_matrices(w,
                    weight + matrix_offset<kValues>(lane % 8 + lane / 16 * 8, pack + lane / 8 % 2));
      multiply_add<T>(sums[0], x, {w[0], w[1]});
      multiply_add<T>(sums[1], x, {w[2], w[3]});
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float* to = &s.sums[warp][lane / 4 + 8 * i][j * 8 + lane % 4 * 2];
        *reinterpret_cast<float2*>(to) = {sums[j][2 * i], sums[j][2 * i + 1]};
      }
    }
  }

  template <typename T>
  __device__ void write(int value_block) const {
    for (int i = thread; i < a.tile_rows * kValues; i += kExpandThreads) {
      const int r = i / kValues, d = i % kValues;
      if (s.rows[r] < 0) continue;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kExpandWarps; ++w)
        sum += s.sums[w][r][d];
      T* out = reinterpret_cast<T*>(a.out) + (int64_t{s.rows[r]} * a.go.heads + head) * kValueSize;
      out[value_block * kValues + d] = from_float<T>(sum);
    }
  }

  template <typename T>
  __device__ void run(int first_block, int end_block) const {
    weigh_pieces();
    __syncthreads();
    join_pieces<T>();
    __syncthreads();  // also: the factors have been used
    int buffer = 0;
    for (int block = first_block; block < end_block; ++block, buffer ^= 1) {
      if (block + 1 < end_block) stage_weight(block + 1, buffer ^ 1);
      commit_copies();
      wait_for_copies<1>();
      __syncthreads();  // also: the sums of the block before have been written
      multiply<T>(buffer);
      __syncthreads();
      write<T>(block);
    }
  }
};

/// Grid: blocks that share the rows of V_h, heads, tiles of rows.
__global__ void __launch_bounds__(kExpandThreads, kBlocks)
    expand_rows(const __grid_constant__ ExpandArgs a) {
  extern __shared__ __align__(128) std::byte shared[];
  const Expand expand{a, *reinterpret_cast<ExpandShared*>(shared)};
  const int blocks = kValueBlocks / static_cast<int>(gridDim.x);
  const int first_block = static_cast<int>(blockIdx.x) * blocks;
  expand.stage_weight(first_block, 0);
  commit_copies();
  if (expand.warp == 0) expand.find_tile();
  device::wait_for_predecessor();
  device::let_successor_start();
  __syncthreads();
  on_type(a.go, [&]<typename T>(T) { expand.run<T>(first_block, first_block + blocks); });
}

int div_up(int a, int b) {
  return (a + b - 1) / b;
}

}  // namespace

void absorb_queries(const device::Queue& queue, const Go& go, const void* q, const void* kv_b) {
  static const bool reserved = device::reserve_shared("absorb_queries", absorb_rows, 0);
  static_cast<void>(reserved);
  // About four blocks to a multiprocessor: more would only read the weights again.
  const int tiles = div_up(go.slots, kTileRows);
  const int sharers = 4 * device::multiprocessors() / (kColumnBlocks * go.heads);
  const dim3 grid(kColumnBlocks, static_cast<unsigned>(go.heads),
                  static_cast<unsigned>(std::clamp(sharers, 1, tiles)));
  const AbsorbArgs args{
      .go = go, .q = static_cast<const std::byte*>(q), .kv_b = static_cast<const std::byte*>(kv_b)};
  device::launch_kernel("absorb_queries", queue, grid, dim3(kAbsorbThreads), 0, absorb_rows, args);
}

void expand_values(const device::Queue& queue, const Go& go, const void* kv_b, void* out) {
  constexpr int kShared = sizeof(ExpandShared);
  static const bool allowed = device::reserve_shared("expand_values", expand_rows, kShared);
  static_cast<void>(allowed);
  // Partial results are read by each block that shares the rows of V_h, weights for each tile: so
  // tiles become smaller first, then blocks more.
  const int wanted = device::multiprocessors();
  int tile_rows = kTileRows, sharers = 1;
  while (tile_rows > 4 && go.heads * div_up(go.slots, tile_rows) < 2 * wanted)
    tile_rows /= 2;
  const int tiles = div_up(go.slots, tile_rows);
  while (sharers < kValueBlocks && go.heads * tiles * sharers < wanted)
    sharers *= 2;
  const dim3 grid(static_cast<unsigned>(sharers), static_cast<unsigned>(go.heads),
                  static_cast<unsigned>(tiles));
  const ExpandArgs args{.go = go,
                        .kv_b = static_cast<const std::byte*>(kv_b),
                        .out = static_cast<uint16_t*>(out),
                        .tile_rows = tile_rows};
  device::launch_kernel("expand_values", queue, grid, dim3(kExpandThreads), kShared, expand_rows,
                        args);
}

}  // namespace millrace::ops::absorbed
