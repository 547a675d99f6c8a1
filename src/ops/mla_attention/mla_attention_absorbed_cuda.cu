// The absorbed form on tensor cores, for every row or for those of some sequences. Three launches:
//
//   absorb_queries   K_h^T qn of each row and head             -> 16 bits, workspace
//   attend_latents   a piece of a row's keys with 16 heads     -> partial results, workspace
//   expand_values    pieces join; V_h times the mean           -> out
//
// A unit is 16 heads of one row. Its keys are tiles of 64, cut into pieces whose size follows from
// the row's position alone. Blocks stay, one on each multiprocessor, and share the tiles of all
// units evenly: a block has the pieces that begin in its part, and its copies run on from one piece
// into the next. Grids follow from shapes and from the class of lengths, lengths are read on the
// device.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "device/cuda/occupancy.h"
#include "ops/common/attention_cuda.cuh"
#include "ops/common/shared_memory.h"
#include "ops/common/tensor_core_cuda.cuh"
#include "ops/mla_attention/mla_absorbed_cuda.cuh"
#include "ops/mla_attention/mla_attention_tactics.h"
#include "ops/mla_attention/mla_products_cuda.h"

namespace millrace::ops {
namespace {

using absorbed::Go;
using absorbed::kCached;
using absorbed::kLatentSize;
using absorbed::kMaxSlots;
using absorbed::kPartialFloats;
using absorbed::kStep;
using absorbed::kSteps;
using absorbed::kTileKeys;
using absorbed::kUnitHeads;
using absorbed::tiles_of;

using In = MlaInputs;

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
/// Of a thread: leaves room beside a block for one of the kernel before, so that this one begins
/// while that one runs, and for one of the kernel behind.
constexpr int kRegisters = 216;
static_assert(kThreads == kMaxSlots);  // a thread looks up a slot

constexpr int kStages = 2;  // tiles in shared memory
constexpr int kKeyBytes = 2 * kCached;
constexpr int kTileBytes = kTileKeys * kKeyBytes;
constexpr int kLaneCopies = kKeyBytes / 128;  // eight lanes copy a key, 16 bytes each at a time
static_assert(kKeyBytes % 128 == 0);

constexpr int kHalves = 2;  // of the products with keys: a warp has half their steps
constexpr int kHalfSteps = kSteps / kHalves;
constexpr int kWarpKeys = kTileKeys / (kWarps / kHalves);
constexpr int kWarpColumns = kLatentSize / kWarps;
static_assert(kWarpKeys == 16 && kWarpColumns == 64);

/// From one row of logits or weights to the next; 8 more than a tile against bank conflicts.
constexpr int kRowStride = kTileKeys + 8;

/// At most, for partial results: of 255 rows of 16 heads behind up to 3,072 tokens.
constexpr int64_t kPartialBytes = int64_t{128} << 20;

struct AttendArgs {
  Go go;
  const int32_t* blocks;  // [S, blocks_per_sequence]
  int64_t blocks_per_sequence;
  int context_sequences;       // which come first and have their past in their own blocks
  const int32_t* indirection;  // [R, positions] of beams, or null
  const int32_t* slots;        // [S]
  int64_t positions;
  const std::byte* plane;  // in block 0
  int64_t block_bytes;
  int tokens_per_block;
  float scale;  // of logits in units of log2

  /// Entry of the block table for a position that lies in the entry-th block of a sequence. Not
  /// from the first-level cache, as in find_rows().
  __device__ int block(int sequence, int position, int entry) const {
    int64_t holder = sequence;
    if (indirection != nullptr && sequence >= context_sequences) {
      holder += __ldcg(indirection + __ldcg(slots + sequence) * positions + position);
    }
    return __ldcg(blocks + holder * blocks_per_sequence + entry);
  }
};

struct Shared {
  std::byte tiles[kStages][kTileBytes];  // keys as they are cached; packs: see pack_offset()
  float logits[kHalves][kUnitHeads][kRowStride];  // parts of the products
  uint16_t weights[kUnitHeads][kRowStride];
  float correction[kUnitHeads];
  int sequence[kMaxSlots];  // of a slot that is not empty
  int keys[kMaxSlots];      // that its row sees; 0 if it is empty
  int end[kMaxSlots];       // tiles of the units of all slots up to this one
  int warp_tiles[kWarps];
  int first_slot;
};

/// 16-byte packs lie at their place XOR the key's low bits: eight keys' packs of one place, which
/// ldmatrix reads at once, are in different banks.
__device__ uint32_t pack_offset(int key, int pack) {
  return static_cast<uint32_t>(key * kKeyBytes + (pack ^ (key & 7)) * 16);
}

/// A tile of this block's pieces.
struct Walk {
  int slot;        // -1: there are no more
  int group;       // of heads
  int tile;        // of the unit
  int piece_end;   // the first tile behind the piece
  int unit_start;  // number of the unit's first tile among all of the go
};

/// What a block does. T: bf16 or f16.
class Block {
 public:
  __device__ Block(const AttendArgs& a, Shared& s) : a_(a), s_(s) {}

  /// Looks up the slots and this block's first piece, and starts to copy its first tiles.
  __device__ __forceinline__ void begin() {
    find_slots();
    find_first_piece();
    look_up();
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage)
      copy_tile(stage);
  }

  /// All of this block's pieces, once queries are there.
  template <typename T>
  __device__ __forceinline__ void run() {
    int stage = 0, unit = -1;
    bool is_first = true;  // tile of a piece
    while (now_.slot >= 0) {
      if (now_.unit_start != unit) load_queries();
      unit = now_.unit_start;
      if (is_first) clear();
      wait_for_copies<kStages - 1>();
      __syncthreads();
      multiply_keys<T>(stage);
      __syncthreads();
      weigh<T>();
      __syncthreads();
      add_latents<T>(stage);
      __syncthreads();  // the tile has been used
      copy_tile(stage);
      is_first = now_.tile + 1 == now_.piece_end;
      if (is_first) write_partial();
      advance(now_);
      stage ^= 1;
    }
  }

 private:
  __device__ __forceinline__ int tiles(int slot) const { return tiles_of(s_.keys[slot]); }

  __device__ __forceinline__ void find_slots() {
    if (warp_ == 0) {
      for (int i = lane_; i < kMaxSlots; i += kWarp)
        s_.keys[i] = 0;
      __syncwarp();
      find_rows(a_.go, 0, a_.go.slots, [&](int i, const absorbed::SlotRow& found) {
        s_.sequence[i] = found.sequence;
        s_.keys[i] = found.keys;
      });
    }
    __syncthreads();
    int end = tiles(thread_) * a_.go.groups();
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffu, end, step);
      if (lane_ >= step) end += other;
    }
    if (lane_ == kWarp - 1) s_.warp_tiles[warp_] = end;
    __syncthreads();
    for (int w = 0; w < warp_; ++w)
      end += s_.warp_tiles[w];
    s_.end[thread_] = end;
    __syncthreads();
  }

  /// The first piece that begins in this block's part of all tiles.
  __device__ __forceinline__ void find_first_piece() {
    const int total = s_.end[kMaxSlots - 1];
    const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
    const int part = total / blocks, longer = total % blocks;  // so many have a tile more
    const int begin = block * part + min(block, longer);
    share_end_ = begin + part + (block < longer ? 1 : 0);
    now_.slot = -1;
    load_ = now_;
    if (begin == share_end_) return;  // all threads
    const int slot_begin = thread_ == 0 ? 0 : s_.end[thread_ - 1];
    if (slot_begin <= begin && begin < s_.end[thread_]) s_.first_slot = thread_;
    __syncthreads();
    now_.slot = s_.first_slot;
    const int first = now_.slot == 0 ? 0 : s_.end[now_.slot - 1];
    const int unit_tiles = tiles(now_.slot);
    const int piece = absorbed::piece_tiles(s_.keys[now_.slot]);
    now_.group = (begin - first) / unit_tiles;
    now_.unit_start = first + now_.group * unit_tiles;
    const int tile = begin - now_.unit_start;
    now_.tile = (tile + piece - 1) / piece * piece;
    begin_piece(now_);
    load_ = now_;
  }

  /// To the piece that begins at the walk's tile, or to the next unit's first one if this unit has
  /// none there.
  __device__ __forceinline__ void begin_piece(Walk& walk) const {
    if (walk.tile >= tiles(walk.slot)) {
      walk.unit_start += tiles(walk.slot);
      walk.tile = 0;
      if (walk.unit_start >= share_end_) {  // before a search through empty slots
        walk.slot = -1;
        return;
      }
      if (++walk.group == a_.go.groups()) {
        walk.group = 0;
        do {
          ++walk.slot;
        } while (s_.keys[walk.slot] == 0);  // tiles go on, so there is one
      }
    }
    if (walk.unit_start + walk.tile >= share_end_) {
      walk.slot = -1;
      return;
    }
    const int keys = s_.keys[walk.slot];
    walk.piece_end = min(walk.tile + absorbed::piece_tiles(keys), tiles_of(keys));
  }

  __device__ __forceinline__ void advance(Walk& walk) const {
    if (++walk.tile == walk.piece_end) begin_piece(walk);
  }

  /// Where this lane's two keys of the next tile to be copied lie: eight lanes share a key. Behind
  /// the last key of the row stand zeros. Nothing waits for the table before copy_tile() does.
  __device__ __forceinline__ void look_up() {
    if (load_.slot < 0) return;
    const int sequence = s_.sequence[load_.slot], keys = s_.keys[load_.slot];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = load_.tile * kTileKeys + warp_ * 8 + i * 4 + lane_ / 8;
      has_key_[i] = key < keys;
      const int position = has_key_[i] ? key : 0, entry = position / a_.tokens_per_block;
      block_[i] = a_.block(sequence, position, entry);
      offset_[i] = (position - entry * a_.tokens_per_block) * kKeyBytes + lane_ % 8 * 16;
    }
  }

  /// Starts to copy the next tile, if there is one, and looks up the one behind it. A group of
  /// copies in any case.
  __device__ __forceinline__ void copy_tile(int stage) {
    if (load_.slot >= 0) {
      const uint32_t to = shared_address_of(s_.tiles[stage]);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = warp_ * 8 + i * 4 + lane_ / 8;
        const std::byte* from = a_.plane + block_[i] * a_.block_bytes + offset_[i];
#pragma unroll
        for (int j = 0; j < kLaneCopies; ++j)
          copy_async(to + pack_offset(key, j * 8 + lane_ % 8), from + j * 128, has_key_[i]);
      }
      advance(load_);
      look_up();
    }
    commit_copies();
  }

  /// The unit's queries, as matrix instructions take them; this warp's half of the steps.
  __device__ __forceinline__ void load_queries() {
    const int64_t unit = int64_t{now_.slot} * a_.go.groups() + now_.group;
    const uint4* from = reinterpret_cast<const uint4*>(a_.go.queries) +
                        (unit * kSteps + half_ * kHalfSteps) * kWarp + lane_;
#pragma unroll
    for (int k = 0; k < kHalfSteps; ++k) {
      const uint4 pack = __ldcg(from + k * kWarp);
      queries_[k][0] = pack.x;
      queries_[k][1] = pack.y;
      queries_[k][2] = pack.z;
      queries_[k][3] = pack.w;
    }
  }

  __device__ __forceinline__ void clear() {
    largest_ = -INFINITY;
    total_ = 0;
#pragma unroll
    for (auto& sums : sums_) {
#pragma unroll
      for (float& sum : sums)
        sum = 0;
    }
  }

  /// Half of the products of all heads with this warp's 16 keys. Even and odd steps have sums of
  /// their own: instructions that wait for each other would take twice as long.
  template <typename T>
  __device__ __forceinline__ void multiply_keys(int stage) {
    const uint32_t tile = shared_address_of(s_.tiles[stage]);
    const int first_key = warp_ % (kWarps / kHalves) * kWarpKeys;
    const int key = first_key + lane_ % 8 + lane_ / 16 * 8;
    const int first_pack = half_ * kHalfSteps * 2 + lane_ / 8 % 2;
    float products[2][2][4] = {};
#pragma unroll
    for (int k = 0; k < kHalfSteps; ++k) {
      uint32_t pair[4];
      load_matrices(pair, tile + pack_offset(key, first_pack + k * 2));
      multiply_add<T>(products[k % 2][0], queries_[k], {pair[0], pair[1]});
      multiply_add<T>(products[k % 2][1], queries_[k], {pair[2], pair[3]});
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float* to = &s_.logits[half_][lane_ / 4 + 8 * i][first_key + 8 * j + lane_ % 4 * 2];
        *reinterpret_cast<float2*>(to) = {products[0][j][2 * i] + products[1][j][2 * i],
                                          products[0][j][2 * i + 1] + products[1][j][2 * i + 1]};
      }
    }
  }

  /// Logits become weights. A warp has two heads, a lane four keys of one.
  template <typename T>
  __device__ __forceinline__ void weigh() {
    constexpr int kLanes = kTileKeys / 4;
    const int key = lane_ % kLanes * 4;
    const int left = s_.keys[now_.slot] - now_.tile * kTileKeys - key;  // keys from this lane's on
    const auto one = *reinterpret_cast<const float4*>(&s_.logits[0][own_head_][key]);
    const auto two = *reinterpret_cast<const float4*>(&s_.logits[1][own_head_][key]);
    float x[4] = {one.x + two.x, one.y + two.y, one.z + two.z, one.w + two.w};
    float largest = largest_;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[i] = i < left ? x[i] * a_.scale : -INFINITY;
      largest = fmaxf(largest, x[i]);
    }
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    // A tile has a key at least, so the largest logit is finite.
    const float correction = exp2f(largest_ - largest);
    float sum = 0;
#pragma unroll
    for (float& weight : x) {
      weight = exp2f(weight - largest);
      sum += weight;
    }
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2)
      sum += __shfl_xor_sync(0xffffffffu, sum, step);
    total_ = fmaf(total_, correction, sum);
    largest_ = largest;
    *reinterpret_cast<uint2*>(&s_.weights[own_head_][key]) = {pack_pair<T>(x[0], x[1]),
                                                              pack_pair<T>(x[2], x[3])};
    if (key == 0) s_.correction[own_head_] = correction;
  }

  /// Weighted latents: this warp's 64 elements of all heads.
  template <typename T>
  __device__ __forceinline__ void add_latents(int stage) {
    const float upper = s_.correction[lane_ / 4], lower = s_.correction[lane_ / 4 + 8];
#pragma unroll
    for (auto& sums : sums_) {
      sums[0] *= upper;
      sums[1] *= upper;
      sums[2] *= lower;
      sums[3] *= lower;
    }
    const uint32_t tile = shared_address_of(s_.tiles[stage]);
    const uint32_t weights =
        shared_address_of(&s_.weights[lane_ % 16][0]) + static_cast<uint32_t>(lane_ / 16 * 16);
#pragma unroll
    for (int k = 0; k < kTileKeys / kStep; ++k) {
      uint32_t p[4];
      load_matrices(p, weights + k * kStep * 2);
#pragma unroll
      for (int j = 0; j < kWarpColumns / 16; ++j) {
        uint32_t pair[4];
        load_transposed(pair, tile + pack_offset(k * kStep + lane_ % 16,
                                                 warp_ * (kWarpColumns / 8) + j * 2 + lane_ / 16));
        multiply_add<T>(sums_[2 * j], p, {pair[0], pair[1]});
        multiply_add<T>(sums_[2 * j + 1], p, {pair[2], pair[3]});
      }
    }
  }

  __device__ __forceinline__ void write_partial() const {
    const int piece = now_.tile / absorbed::piece_tiles(s_.keys[now_.slot]);
    float* to = a_.go.partial(now_.slot, now_.group, piece);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float* row = to + (lane_ / 4 + 8 * i) * kLatentSize + warp_ * kWarpColumns + lane_ % 4 * 2;
#pragma unroll
      for (int j = 0; j < kWarpColumns / 8; ++j)
        *reinterpret_cast<float2*>(row + 8 * j) = {sums_[j][2 * i], sums_[j][2 * i + 1]};
    }
    if (lane_ % 16 == 0) {
      to[absorbed::kPartialSums + own_head_] = largest_;
      to[absorbed::kPartialSums + kUnitHeads + own_head_] = total_;
    }
  }

  const AttendArgs& a_;
  Shared& s_;
  const int thread_ = static_cast<int>(threadIdx.x);
  const int warp_ = thread_ / kWarp, lane_ = thread_ % kWarp;
  const int half_ = warp_ / (kWarps / kHalves);
  const int own_head_ = warp_ * 2 + lane_ / 16;  // whose weights it computes, of the unit
  int share_end_ = 0;                            // the first tile of the next block's part
  Walk now_, load_;                              // the tile being computed, the next to be copied
  int block_[2], offset_[2];                     // of the latter's keys, in bytes
  bool has_key_[2];
  uint32_t queries_[kHalfSteps][4];
  float sums_[kWarpColumns / 8][4];
  float largest_, total_;  // of own_head_
};

/// Grid: as many blocks as run at once. Tiles are copied before this kernel waits for
/// absorb_queries: that one lets its successor start when it has itself waited, so that the cache
/// is what it will be.
__global__ void __maxnreg__(kRegisters) attend_latents(const __grid_constant__ AttendArgs a) {
  extern __shared__ __align__(128) std::byte shared[];
  Block block(a, *reinterpret_cast<Shared*>(shared));
  block.begin();
  device::wait_for_predecessor();
  device::let_successor_start();
  on_type(a.go, [&]<typename T>(T) { block.run<T>(); });
}

/// Of a unit whose sequence has this length_class(), at most.
int most_pieces(int of_class) {
  static const auto most = [] {
    std::array<int, 3> pieces{};
    constexpr int kFew = 1 << 16;  // behind it there are kMaxPieces
    for (int keys = kTileKeys; keys <= kFew; keys += kTileKeys) {
      int& own = pieces.at(static_cast<size_t>(length_class(keys)));
      own = std::max(own, absorbed::pieces_of(keys));
    }
    return pieces;
  }();
  return most.at(static_cast<size_t>(of_class));
}

/// By the host's copies of lengths, of the sequences from `first` on; a captured step stays in its
/// class.
int longest_class(const Launch& launch, int first) {
  const Tensor& past = launch.in[In::kSequence + kHostPastLengths];
  const Tensor& query = launch.in[In::kSequence + kHostQueryLength];
  int longest = 0;
  for (int64_t s = first; s < past.dim(0); ++s) {
    const int count = query.as<int32_t>()[s];
    if (count > 0) longest = std::max(longest, length_class(past.as<int32_t>()[s] + count));
  }
  return longest;
}

int64_t query_bytes(int heads, int64_t slots) {
  return slots * heads * kKeyBytes;
}
int64_t partial_bytes(int heads, int64_t slots, int pieces) {
  return slots * (heads / kUnitHeads) * pieces * kPartialFloats *
         static_cast<int64_t>(sizeof(float));
}

/// Rows of a go, at most.
int most_slots(int heads, int pieces) {
  return static_cast<int>(
      std::clamp<int64_t>(kPartialBytes / partial_bytes(heads, 1, pieces), 1, kMaxSlots));
}

bool is_aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

/// Why the sizes or types are not those of these kernels; empty if they are.
std::string why_no_sizes(const Launch& launch) {
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  const ir::DType type = launch.in[In::kQ].dtype;
  if (type == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (launch.in[In::kKvB].dtype != type) return "kv_b is of another type than q";
  if (shape.nope_size != absorbed::kNopeSize || shape.rope_size != absorbed::kRopeSize ||
      shape.v_size != absorbed::kValueSize) {
    return str("needs heads of ", absorbed::kNopeSize, " + ", absorbed::kRopeSize,
               " and values of ", absorbed::kValueSize);
  }
  if (shape.latent_size != kLatentSize) return str("needs a latent of ", kLatentSize);
  if (shape.heads % kUnitHeads != 0) return str("needs a multiple of ", kUnitHeads, " heads");
  return "";
}

/// Also what is known only when there is memory: whether the cache, as it lies, and the tensors can
/// be read 16 bytes at a time.
bool fits(const Launch& launch) {
  const KvCacheView& cache = *SequenceRows(launch.in, In::kSequence).cache;
  return why_no_sizes(launch).empty() && cache.dtype == launch.in[In::kQ].dtype &&
         has_packed_keys(cache) && is_aligned(launch.in[In::kQ].data) &&
         is_aligned(launch.in[In::kKvB].data);
}

/// For the sequences [first, end). The go has no slots yet.
AttendArgs attend_args(const Launch& launch, int first, int end) {
  const SequenceRows sequences = mla_sequences(launch, RequestType::kGeneration);
  const KvCacheView& cache = *sequences.cache;
  const auto& attributes = launch.attrs<MlaAttention>();
  constexpr double kLog2E = 1.4426950408889634;
  AttendArgs args{};
  args.go.sequence_length = sequences.sequence_length;
  args.go.query_start = sequences.query_start;
  args.go.query_length = sequences.query_length;
  args.go.first_sequence = first;
  args.go.end_sequence = end;
  args.go.heads = attributes.heads;
  args.go.is_bf16 = launch.in[In::kQ].dtype == ir::DType::kBF16;
  args.go.queries = static_cast<uint32_t*>(launch.workspace);
  args.blocks = sequences.block_offsets;
  args.blocks_per_sequence = sequences.blocks_per_sequence;
  args.context_sequences = count_context_sequences(launch);
  args.indirection = sequences.indirection;
  args.slots = sequences.slots;
  args.positions = sequences.positions;
  args.plane = cache.pool + cache.k_offset;
  args.block_bytes = cache.block_bytes;
  args.tokens_per_block = cache.tokens_per_block;
  args.scale = static_cast<float>(attributes.scale * kLog2E);
  return args;
}

/// `rows` rows of the sequences [first, end), in goes of equal size. REQUIRES: fits().
void attend_rows(const Launch& launch, int first, int end, int rows) {
  if (rows == 0) return;
  static const bool allowed =
      device::reserve_shared("attend_latents", attend_latents, sizeof(Shared));
  static_cast<void>(allowed);
  AttendArgs args = attend_args(launch, first, end);
  Go& go = args.go;
  go.unit_pieces = most_pieces(longest_class(launch, first));
  const int most = most_slots(go.heads, go.unit_pieces);
  const int goes = (rows - 1) / most + 1;
  const int at_once = (rows - 1) / goes + 1;
  go.partials = reinterpret_cast<float*>(static_cast<std::byte*>(launch.workspace) +
                                         query_bytes(go.heads, at_once));
  const void* kv_b = launch.in[In::kKvB].data;
  for (; go.first_slot < rows; go.first_slot += at_once) {
    go.slots = std::min(at_once, rows - go.first_slot);
    absorbed::absorb_queries(*launch.queue, go, launch.in[In::kQ].data, kv_b);
    device::launch_kernel("attend_latents", *launch.queue,
                          dim3(static_cast<unsigned>(device::multiprocessors())), dim3(kThreads),
                          sizeof(Shared), attend_latents, args);
    absorbed::expand_values(*launch.queue, go, kv_b, launch.out[0].data);
  }
}

}  // namespace

std::string mla_attention_absorbed_cuda_why_not(const Launch& launch,
                                                const device::Properties& properties) {
  const std::string why = why_no_sizes(launch);
  return why.empty() ? why_no_shared(sizeof(Shared), properties) : why;
}

/// For as many rows as a go may have of each class of lengths: which it will be is not known when
/// memory is planned.
int64_t mla_attention_absorbed_cuda_workspace(const Launch& launch, const device::Properties&) {
  if (!why_no_sizes(launch).empty()) return 0;
  const int heads = launch.attrs<MlaAttention>().heads;
  int64_t bytes = 0;
  for (const int of_class : {0, 1, 2}) {
    const int pieces = most_pieces(of_class);
    const int64_t slots = std::min<int64_t>(launch.out[0].dim(0), most_slots(heads, pieces));
    bytes = std::max(bytes, query_bytes(heads, slots) + partial_bytes(heads, slots, pieces));
  }
  return bytes;
}

// Captured, it is replayed for other lengths, so that there are slots for as many rows as the step
// could have.
void mla_attention_absorbed_cuda(const Launch& launch) {
  if (!fits(launch)) return mla_attention_cuda(launch);
  const auto sequences = static_cast<int>(launch.in[In::kSequence].dim(0));
  attend_rows(launch, 0, sequences, static_cast<int>(launch.out[0].dim(0)));
}

void mla_attention_absorbed_rows_cuda(const Launch& launch, int first,
                                      std::span<const int32_t> query_lengths) {
  if (!fits(launch)) return mla_attention_rows_cuda(launch, first, query_lengths);
  attend_rows(launch, first, first + static_cast<int>(query_lengths.size()),
              std::accumulate(query_lengths.begin(), query_lengths.end(), 0));
}

}  // namespace millrace::ops
