#include <cooperative_groups.h>

#include "device/cuda/occupancy.h"
#include "ops/common/element_types_cuda.cuh"
#include "ops/common/full_attention_cuda.h"
#include "ops/common/shared_memory.h"
#include "ops/common/vector_access_cuda.cuh"

namespace millrace::ops {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kQueries = 16;         // of a block: a query is a row with one head
constexpr int kFew = 4;              // queries among which threads are divided in another way
constexpr int kKeys = 64;            // of a tile
constexpr int kDepth = 64;           // elements of a tile's keys, or of its values, in a chunk
constexpr int kStride = kDepth + 4;  // floats: 16 bytes of eight keys in a row lie in all banks
constexpr int kPack = 4;             // elements that a thread moves at once
constexpr int kKeysAtOnce = kThreads * kPack / kDepth;
constexpr int kPacks = kKeys / kKeysAtOnce;  // of a thread, of a chunk
constexpr int kMaxColumns = 256;             // of V, of a block
constexpr int kMaxTeam = 8;                  // blocks of a cluster
constexpr int kBlocksAtOnce = 4;             // on a multiprocessor

/// Of a block. Behind it: queries [kQueries, head size in packs], then a tile's sums and those of
/// all tiles so far, [queries, columns] each.
struct alignas(16) Shared {
  float chunk[2][kKeys * kStride];   // one is filled while the other is used
  float weights[kQueries][kStride];  // logits at first
  int64_t address[2][2][kKeys];      // of this tile's and the next one's keys and values, in bytes
  int buckets[kKeys + kQueries];     // of a key minus a query, ascending
  float tile_largest[kQueries], tile_total[kQueries];
  float largest[kQueries], total[kQueries];
  float keep[kMaxTeam][kQueries], add[kMaxTeam][kQueries];  // factors when a tile is added
};

__host__ __device__ constexpr int in_packs(int size) {
  return (size + kPack - 1) / kPack * kPack;
}

int shared_bytes(int head_size, int v_head_size) {
  const int floats = in_packs(head_size) + 2 * std::min(v_head_size, kMaxColumns);
  return static_cast<int>(sizeof(Shared) + sizeof(float) * kQueries * static_cast<size_t>(floats));
}

/// Blocks that have the same queries: each its own tiles of keys.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
struct Team {
  cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());

  __device__ void sync() const {
    if (blocks > 1) {
      cluster.sync();
    } else {
      __syncthreads();
    }
  }
  /// Where another block has what this one has at `here`.
  const __device__ float* of_block(float* here, int block) const {
    return blocks > 1 ? cluster.map_shared_rank(here, block) : here;
  }
};
#else
struct Team {
  static constexpr int blocks = 1, rank = 0;
  __device__ static void sync() { __syncthreads(); }
  const __device__ static float* of_block(float* here, int) { return here; }
};
#endif

/// What a block has to do: queries [first, first + count) of a sequence. The queries of a sequence
/// and KV head: row after row, of each the heads that use this KV head.
struct QueryTile {
  int sequence = -1;
  int start = 0;  // the sequence's first row
  int keys = 0;
  int first = 0, count = 0;
};

/// The tile of queries with this number; none if there are fewer. Every warp looks for itself.
__device__ QueryTile find_tile(const FullArgs& a, int index) {
  constexpr int kAtOnce = 4;
  constexpr unsigned kAll = 0xffffffffu;
  const auto lane = static_cast<int>(threadIdx.x) % kWarp;
  QueryTile tile;
  for (int base = 0; base < a.sequences && tile.sequence < 0; base += kAtOnce * kWarp) {
    int length[kAtOnce], start[kAtOnce], keys[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int s = base + i * kWarp + lane;
      const bool is = s < a.sequences;
      length[i] = is ? a.query_length[s] : 0;
      start[i] = is ? a.query_start[s] : 0;
      keys[i] = is && a.key_counts != nullptr ? a.key_counts[s] : length[i];
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int queries = length[i] * a.group, tiles = (queries + kQueries - 1) / kQueries;
      int end = tiles;  // of this lane's and those before
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const int before = __shfl_up_sync(kAll, end, step);
        if (lane >= step) end += before;
      }
      const unsigned behind = __ballot_sync(kAll, index < end);
      if (behind != 0 && tile.sequence < 0) {
        const int owner = __ffs(static_cast<int>(behind)) - 1;
        tile.sequence = base + i * kWarp + owner;
        tile.start = __shfl_sync(kAll, start[i], owner);
        tile.keys = __shfl_sync(kAll, keys[i], owner);
        tile.first = (index - __shfl_sync(kAll, end - tiles, owner)) * kQueries;
        tile.count = min(kQueries, __shfl_sync(kAll, queries, owner) - tile.first);
      }
      index -= __shfl_sync(kAll, end, kWarp - 1);
    }
  }
  return tile;
}

/// Elements of a chunk on their way to shared memory: as they are, or as floats if they came one by
/// one.
struct Fetched {
  uint4 packs[kPacks];
};

/// A thread's part of a tile's logits, and of a chunk's columns: kRows queries, kWide of the 64.
/// 16 queries: a warp has four with all 64; few: two with half of them. Which thread adds up does
/// not change in which order.
template <int kRows, int kWide>
struct Part {
  static constexpr int kSplit = 2 / kWide;  // warps that share queries
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int slot = warp % kSplit * kWarp + static_cast<int>(threadIdx.x) % kWarp;
  const int row = warp / kSplit * kRows;

  __device__ int key(int j) const { return slot + j * (kKeys / kWide); }
  __device__ int column(int j) const { return slot * kWide + j; }
};
static_assert(kWarps * 4 == kQueries && kWarps / 2 * 2 == kFew);

class Attention {
 public:
  __device__ Attention(const FullArgs& a, const Team& team, const QueryTile& queries,
                       std::byte* memory)
      : a_(a),
        team_(team),
        queries_(queries),
        shared_(*reinterpret_cast<Shared*>(memory)),
        q_stride_(in_packs(a.head_size)),
        first_column_(static_cast<int>(blockIdx.z) * kMaxColumns),
        columns_(min(kMaxColumns, a.v_head_size - first_column_)),
        tiles_((queries.keys + kKeys - 1) / kKeys),
        thread_(static_cast<int>(threadIdx.x)),
        kv_head_(static_cast<int>(blockIdx.y)) {
    q_ = reinterpret_cast<float*>(memory + sizeof(Shared));
    tile_sums_ = q_ + kQueries * q_stride_;
    sums_ = tile_sums_ + kQueries * min(kMaxColumns, a.v_head_size);
  }

  template <int kRows, int kWide>
  __device__ void run() {
    set_addresses(team_.rank, 0);
    __syncthreads();
    Fetched fetched;
    if (team_.rank < tiles_) fetch(false, team_.rank, 0, 0, fetched);
    load_queries();  // while the keys are on their way; the barrier of the first chunk is theirs,
                     // too
    int buffer = 0;
    for (int round = 0; round * team_.blocks < tiles_; ++round) {
      const int tile = round * team_.blocks + team_.rank;
      if (tile < tiles_) attend<kRows, kWide>(tile, round % 2, buffer, fetched);
      team_.sync();
      add_tiles(min(team_.blocks, tiles_ - round * team_.blocks));
      if (team_.blocks > 1) team_.sync();  // the others have read this block's sums
    }
    store();
  }

 private:
  __device__ int row_of(int query) const { return (queries_.first + query) / a_.group; }
  __device__ int head_of(int query) const {
    return kv_head_ * a_.group + (queries_.first + query) % a_.group;
  }
  __device__ int keys_of(int tile) const { return min(kKeys, queries_.keys - tile * kKeys); }

  __device__ void load_queries() {
    for (int e = thread_; e < kQueries * q_stride_; e += kThreads) {
      const int query = e / q_stride_, d = e % q_stride_;
      float x = 0;
      if (query < queries_.count && d < a_.head_size) {
        const int64_t row = queries_.start + row_of(query);
        x = load_element(a_.q, a_.type, (row * a_.heads + head_of(query)) * a_.head_size + d);
      }
      q_[e] = x;
    }
    for (int e = thread_; e < queries_.count * columns_; e += kThreads)
      sums_[e] = 0;
    if (thread_ < kQueries) {
      shared_.largest[thread_] = -INFINITY;
      shared_.total[thread_] = 0;
    }
  }

  /// What a thread moves of a chunk: the same four elements of every eighth key.
  __device__ int first_key() const { return thread_ / (kDepth / kPack); }
  __device__ int first_element() const { return thread_ % (kDepth / kPack) * kPack; }

  /// Half of the threads for keys, half for values.
  __device__ void set_addresses(int tile, int which) {
    static_assert(kThreads == 2 * kKeys);
    const bool is_value = thread_ >= kKeys;
    const int key = thread_ % kKeys, j = tile * kKeys + key;
    if (j >= queries_.keys) return;
    const int64_t size = is_value ? a_.v_head_size : a_.head_size;
    const int64_t bytes = a_.key_type == ir::DType::kF32 ? 4 : 2;
    int64_t at;
    if (a_.k_rows != nullptr) {
      at =
          ((queries_.start + j) * (is_value ? a_.v_stride : a_.k_stride) + kv_head_ * size) * bytes;
    } else {
      const int64_t block =
          a_.blocks[queries_.sequence * a_.blocks_per_sequence + j / a_.tokens_per_block];
      const int64_t slot = int64_t{kv_head_} * a_.tokens_per_block + j % a_.tokens_per_block;
      at = block * a_.block_bytes + slot * size * bytes;
    }
    shared_.address[which][is_value ? 1 : 0][key] = at;
  }

  /// A chunk of a tile's keys or values. What is not there is 0. `which`: of the addresses.
  __device__ void fetch(bool is_value, int tile, int which, int chunk, Fetched& to) const {
    const void* rows = is_value ? a_.v_rows : a_.k_rows;
    const void* pool = is_value ? a_.v_pool : a_.k_pool;
    const void* base = a_.k_rows != nullptr ? rows : pool;
    const int64_t* address = shared_.address[which][is_value ? 1 : 0];
    const int keys = keys_of(tile), size = is_value ? a_.v_head_size : a_.head_size;
    const int d = (is_value ? first_column_ : 0) + chunk * kDepth + first_element();
    const auto each = [&](const auto& load) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int key = first_key() + i * kKeysAtOnce;
        to.packs[i] = {};
        if (key < keys && d < size)
          load(static_cast<const std::byte*>(base) + address[key], to.packs[i]);
      }
    };
    if (!a_.packed) {
      on_float_type(a_.key_type, [&]<typename T>(T) {
        each([&](const std::byte* from, uint4& pack) {
          float x[kPack];
#pragma unroll
          for (int i = 0; i < kPack; ++i)
            x[i] = d + i < size ? to_float(reinterpret_cast<const T*>(from)[d + i]) : 0;
          pack = {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]),
                  __float_as_uint(x[3])};
        });
      });
    } else if (a_.key_type == ir::DType::kF32) {
      each([&](const std::byte* from, uint4& pack) {
        pack = *reinterpret_cast<const uint4*>(from + d * 4);
      });
    } else {
      each([&](const std::byte* from, uint4& pack) {
        const uint2 half = *reinterpret_cast<const uint2*>(from + d * 2);
        pack.x = half.x;
        pack.y = half.y;
      });
    }
  }

  /// To shared memory, as floats.
  __device__ void put(const Fetched& from, float* chunk) const {
    const auto each = [&](const auto& floats) {
#pragma unroll
      for (int i = 0; i < kPacks; ++i) {
        const int key = first_key() + i * kKeysAtOnce;
        *reinterpret_cast<float4*>(chunk + key * kStride + first_element()) = floats(from.packs[i]);
      }
    };
    if (!a_.packed || a_.key_type == ir::DType::kF32) {
      each([](const uint4& pack) { return __builtin_bit_cast(float4, pack); });
    } else {
      on_float_type(a_.key_type, [&]<typename T>(T) {
        each([](const uint4& pack) {
          const auto x = __builtin_bit_cast(Pack<T, 8 / sizeof(T)>, uint2{pack.x, pack.y});
          return float4{to_float(x.at[0]), to_float(x.at[1]), to_float(x.at[2 % (8 / sizeof(T))]),
                        to_float(x.at[3 % (8 / sizeof(T))])};
        });
      });
    }
  }

  /// A tile's largest logits, sums of weights, and sums of values. `fetched` has the first chunk of
  /// its keys, and then that of this block's next tile.
  template <int kRows, int kWide>
  __device__ void attend(int tile, int which, int& buffer, Fetched& fetched) {
    const Part<kRows, kWide> part;
    const bool works = part.row < queries_.count;
    const int keys = keys_of(tile), next = tile + team_.blocks;
    float sums[kRows][kWide] = {};
    set_buckets(tile);
    for (int first = 0; first < a_.head_size; first += kDepth, buffer ^= 1) {
      put(fetched, shared_.chunk[buffer]);
      __syncthreads();
      if (first == 0) set_addresses(next, which ^ 1);
      const bool more = first + kDepth < a_.head_size;
      fetch(!more, tile, which, more ? first / kDepth + 1 : 0, fetched);
      if (works) {
        multiply_keys(part, q_ + part.row * q_stride_ + first, shared_.chunk[buffer],
                      min(kDepth, q_stride_ - first), sums);
      }
    }
    put_logits(part, tile, keys, sums);
    __syncthreads();
    weigh();
    for (int first = 0; first < columns_; first += kDepth, buffer ^= 1) {
      put(fetched, shared_.chunk[buffer]);
      __syncthreads();
      const bool more = first + kDepth < columns_;
      if (more || next < tiles_)
        fetch(more, more ? tile : next, more ? which : which ^ 1, more ? first / kDepth + 1 : 0,
              fetched);
      if (works) add_values(part, shared_.chunk[buffer], keys, first);
    }
  }

  /// For each distance of a tile's keys from the queries.
  __device__ void set_buckets(int tile) {
    if (a_.bias == nullptr || thread_ >= kKeys + kQueries) return;
    const int last = row_of(queries_.count - 1);
    shared_.buckets[thread_] = a_.buckets(tile * kKeys + thread_ - last);
  }

  template <int kRows, int kWide>
  __device__ void multiply_keys(const Part<kRows, kWide>& part, const float* q, const float* chunk,
                                int depth, float (&sums)[kRows][kWide]) const {
#pragma unroll 4
    for (int d = 0; d < depth; d += kPack) {
      float4 k[kWide];
#pragma unroll
      for (int j = 0; j < kWide; ++j)
        k[j] = *reinterpret_cast<const float4*>(chunk + part.key(j) * kStride + d);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float4 x = *reinterpret_cast<const float4*>(q + r * q_stride_ + d);
#pragma unroll
        for (int j = 0; j < kWide; ++j) {
          float& sum = sums[r][j];
          sum = fmaf(x.x, k[j].x, sum);
          sum = fmaf(x.y, k[j].y, sum);
          sum = fmaf(x.z, k[j].z, sum);
          sum = fmaf(x.w, k[j].w, sum);
        }
      }
    }
  }

  template <int kRows, int kWide>
  __device__ void put_logits(const Part<kRows, kWide>& part, int tile, int keys,
                             const float (&sums)[kRows][kWide]) {
    const int last = row_of(queries_.count - 1);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int query = part.row + r;
      if (query >= queries_.count) break;
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int key = part.key(j);
        float logit = -INFINITY;
        if (key < keys) {
          float bias = 0;
          if (a_.bias != nullptr) {
            const int64_t bucket = shared_.buckets[key + last - row_of(query)];
            bias = load_element(a_.bias, a_.bias_type, bucket * a_.heads + head_of(query));
          }
          logit = fmaf(a_.scale, sums[r][j], bias);
        }
        shared_.weights[query][key] = logit;
      }
    }
  }

  /// Logits become weights; a warp has every fourth query.
  __device__ void weigh() {
    static_assert(kKeys == 2 * kWarp);
    const int lane = thread_ % kWarp;
    for (int query = thread_ / kWarp; query < queries_.count; query += kWarps) {
      float* x = shared_.weights[query];
      const float low = x[lane], high = x[lane + kWarp];
      const float largest = warp_max(fmaxf(low, high));
      const float low_weight = expf(low - largest), high_weight = expf(high - largest);
      x[lane] = low_weight;
      x[lane + kWarp] = high_weight;
      // Never fused with what expf() ends with: the same bits wherever this is compiled to.
      const float total = warp_sum(__fadd_rn(low_weight, high_weight));
      if (lane == 0) {
        shared_.tile_largest[query] = largest;
        shared_.tile_total[query] = total;
      }
    }
  }

  /// The sums of a chunk: key after key.
  template <int kRows, int kWide>
  __device__ void add_values(const Part<kRows, kWide>& part, const float* chunk, int keys,
                             int first) {
    float sums[kRows][kWide] = {};
#pragma unroll 4
    for (int key = 0; key < keys; key += kPack) {  // those behind the last one weigh 0, and are 0
      float v[kPack][kWide];
#pragma unroll
      for (int i = 0; i < kPack; ++i)
        load_floats<kWide>(chunk + (key + i) * kStride + part.column(0), v[i]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float weights[kPack];
        load_floats<kPack>(&shared_.weights[part.row + r][key], weights);
#pragma unroll
        for (int i = 0; i < kPack; ++i) {
#pragma unroll
          for (int j = 0; j < kWide; ++j)
            sums[r][j] = fmaf(weights[i], v[i][j], sums[r][j]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int query = part.row + r;
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int column = first + part.column(j);
        if (query < queries_.count && column < columns_)
          tile_sums_[query * columns_ + column] = sums[r][j];
      }
    }
  }

  /// Adds the tiles of the first `blocks` blocks of the team to what there is, one after the other:
  /// the same sums whatever the team. Every block has all totals, and its share of the sums.
  __device__ void add_tiles(int blocks) {
    if (thread_ < queries_.count) {
      float largest = shared_.largest[thread_], total = shared_.total[thread_];
      for (int b = 0; b < blocks; ++b) {
        const float of_tile = team_.of_block(shared_.tile_largest, b)[thread_];
        const float top = fmaxf(largest, of_tile);
        const float keep = expf(largest - top), add = expf(of_tile - top);
        total = fmaf(total, keep, team_.of_block(shared_.tile_total, b)[thread_] * add);
        largest = top;
        shared_.keep[b][thread_] = keep;
        shared_.add[b][thread_] = add;
      }
      shared_.largest[thread_] = largest;
      shared_.total[thread_] = total;
    }
    __syncthreads();
    for_each_sum([&](int e, int query) {
      float sum = sums_[e];
      for (int b = 0; b < blocks; ++b) {
        sum = fmaf(sum, shared_.keep[b][query],
                   team_.of_block(tile_sums_, b)[e] * shared_.add[b][query]);
      }
      sums_[e] = sum;
    });
  }

  __device__ void store() const {
    if (tiles_ == 0) __syncthreads();  // there has been none since the totals were set
    for_each_sum([&](int e, int query) {
      const int64_t row = queries_.start + row_of(query);
      const int64_t column = first_column_ + e % columns_;
      store_element(a_.out, a_.type, (row * a_.heads + head_of(query)) * a_.v_head_size + column,
                    sums_[e] / shared_.total[query]);
    });
  }

  /// Those that this thread of this block of the team keeps.
  template <typename F>
  __device__ void for_each_sum(const F& visit) const {
    for (int e = team_.rank * kThreads + thread_; e < queries_.count * columns_;
         e += team_.blocks * kThreads)
      visit(e, e / columns_);
  }

  const FullArgs& a_;
  const Team team_;
  const QueryTile queries_;
  Shared& shared_;
  float *q_, *tile_sums_, *sums_;
  const int q_stride_, first_column_, columns_, tiles_, thread_, kv_head_;
};

__global__ void __launch_bounds__(kThreads, kBlocksAtOnce) full_attention_kernel(FullArgs a) {
  extern __shared__ __align__(16) std::byte memory[];
  device::let_successor_start();
  device::wait_for_predecessor();
  const Team team;
  const QueryTile queries = find_tile(a, static_cast<int>(blockIdx.x) / team.blocks);
  if (queries.sequence < 0) return;  // with the whole team
  Attention attention(a, team, queries, memory);
  if (queries.count <= kFew) {
    attention.run<2, 1>();
  } else {
    attention.run<4, 2>();
  }
}

/// Whether four neighbouring elements of every key and value can be read at once.
bool has_packs(const FullArgs& a) {
  const int64_t bytes = ir::dtype_size(a.key_type) * kPack;
  const auto fits = [&](const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
  };
  if (a.head_size % kPack != 0 || a.v_head_size % kPack != 0) return false;
  if (a.k_rows == nullptr) return fits(a.k_pool) && fits(a.v_pool) && a.block_bytes % bytes == 0;
  return fits(a.k_rows) && fits(a.v_rows) && a.k_stride % kPack == 0 && a.v_stride % kPack == 0;
}

}  // namespace

std::string full_attention_why_not(const FullAttention& shape, const device::Properties& device) {
  return why_no_shared(shared_bytes(shape.head_size, shape.v_head_size), device);
}

FullArgs full_args(const Launch& launch, const FullAttention& shape, const Tensor& start,
                   const Tensor& length) {
  FullArgs a{};
  a.q = launch.in[0].data;
  a.out = launch.out[0].data;
  a.type = launch.in[0].dtype;
  a.query_start = start.as<int32_t>();
  a.query_length = length.as<int32_t>();
  a.sequences = static_cast<int>(start.dim(0));
  a.heads = shape.heads;
  a.group = shape.group();
  a.head_size = shape.head_size;
  a.v_head_size = shape.v_head_size;
  a.scale = shape.scale;
  return a;
}

void launch_full_attention(const char* name, const Launch& launch, FullArgs args,
                           int64_t most_keys) {
  static const bool allowed =
      device::reserve_shared(name, full_attention_kernel, shared_bytes(kMaxHeadSize, kMaxHeadSize));
  static_cast<void>(allowed);
  const int64_t queries = launch.out[0].dim(0) * args.group;  // of a KV head
  if (queries == 0) return;
  float_type(args.key_type);  // else the process ends
  args.packed = has_packs(args);
  // Lengths are on the device: as many tiles of queries as there can be.
  const int64_t tiles =
      std::min(queries, (queries + int64_t{args.sequences} * (kQueries - 1)) / kQueries);
  const int64_t kv_heads = args.heads / args.group;
  const int64_t columns = (args.v_head_size + kMaxColumns - 1) / kMaxColumns;
  const int64_t key_tiles = (most_keys + kKeys - 1) / kKeys;
  const int64_t room = int64_t{kBlocksAtOnce} * device::multiprocessors();
  int team = 1;
  while (device::has_clusters() && team < kMaxTeam && 2 * team <= key_tiles &&
         2 * team * tiles * kv_heads * columns <= room)
    team *= 2;
  device::launch_clusters(name, *launch.queue, static_cast<unsigned>(team),
                          dim3(static_cast<unsigned>(tiles * team), static_cast<unsigned>(kv_heads),
                               static_cast<unsigned>(columns)),
                          dim3(kThreads),
                          static_cast<size_t>(shared_bytes(args.head_size, args.v_head_size)),
                          full_attention_kernel, args);
}

}  // namespace millrace::ops
