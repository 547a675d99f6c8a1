// Prompts in the expanded form on Hopper's tensor cores; tokens in generation stay absorbed.
//
//   gather   the latents and rotated keys of all tokens that the sequences see, from the blocks of
//            the cache                                    -> [L, C], [L, R], sequence by sequence
//   expand   matmul_wgmma_cuda, latents times kv_b^T      -> [L, heads, Dn + Dv]
//   attend   the kernel of attention_context_wgmma_cuda, with keys of 192 and values of 128
//
// What is made lies in the workspace, whose size is fixed: where it does not hold all heads of a
// sequence, some heads come after the others. Short sequences go together, as many as leave room
// for all heads. Neither changes a bit of a row.
#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "device/cuda/tensor_map.h"
#include "ops/common/context_wgmma_cuda.cuh"
#include "ops/mla_attention/mla_attention_tactics.h"

namespace millrace::ops {
namespace {

using In = MlaInputs;

constexpr int kNopeSize = 128, kRopeSize = 64, kValueSize = 128;
constexpr int kMadeSize = kNopeSize + kValueSize;  // of a head, from a latent
constexpr int kLatentStep = 64;

using P = context::Plan<kNopeSize + kRopeSize, kValueSize, context::ExpandedArgs>;

/// Enough for one head of 181,000 tokens, and for all 16 of DeepSeek V2 Lite of 32,000.
constexpr int64_t kWorkspaceBytes = int64_t{288} << 20;

/// Of `tokens` tokens, at most; 0: not even one head's keys and values fit.
int heads_that_fit(const MlaShape& shape, int64_t tokens) {
  const int64_t elements = kWorkspaceBytes / (2 * tokens);  // of a token
  const int64_t heads = (elements - shape.cached()) / kMadeSize;
  return static_cast<int>(std::clamp<int64_t>(heads, 0, shape.heads));
}

/// Consecutive context sequences whose keys are made together.
struct Batch {
  int first = 0;
  std::span<const int32_t> rows;  // of this step, by sequence
  int longest = 0;                // tokens
  int64_t tokens = 0;             // of all that have rows: L
};

/// From `first` on, as many as leave room for all heads, but one at least. `past`, `rows`: of all
/// context sequences.
Batch next_batch(const MlaShape& shape, std::span<const int32_t> past,
                 std::span<const int32_t> rows, size_t first) {
  Batch batch{.first = static_cast<int>(first), .rows = {}};
  size_t end = first;
  for (; end < rows.size(); ++end) {
    const int length = rows[end] > 0 ? past[end] + rows[end] : 0;
    if (batch.tokens > 0 && heads_that_fit(shape, batch.tokens + length) < shape.heads) break;
    batch.tokens += length;
    batch.longest = std::max(batch.longest, length);
  }
  batch.rows = rows.subspan(first, end - first);
  return batch;
}

/// The workspace.
struct Made {
  std::byte* latents;     // [L, C]
  std::byte* shared_key;  // [L, R]
  std::byte* heads;       // [L, heads, Dn + Dv]

  Made(const Launch& launch, const MlaShape& shape, int64_t tokens)
      : latents(static_cast<std::byte*>(launch.workspace)),
        shared_key(latents + tokens * shape.latent_size * 2),
        heads(shared_key + tokens * kRopeSize * 2) {}
};

// ---- gather ----

constexpr int kGatherThreads = 256;
constexpr int kWarpTokens = 4;
constexpr int kBlockTokens = kGatherThreads / kWarp * kWarpTokens;

struct GatherArgs {
  const int32_t* sequence_length;  // [sequences]
  const int32_t* query_length;     // [sequences]
  const int32_t* blocks;           // [sequences, blocks_per_sequence]
  int64_t blocks_per_sequence;
  const std::byte* plane;  // in block 0
  int64_t block_bytes;
  int tokens_per_block;
  int latent_packs;   // in 16 bytes each: of a latent
  int cached_packs;   // of what is cached of a token
  uint4* latents;     // [L, C]
  uint4* shared_key;  // [L, R]
};

/// Grid: pieces of kBlockTokens tokens, sequences. A sequence without rows has no tokens.
__global__ void __launch_bounds__(kGatherThreads)
    gather_latents(const __grid_constant__ GatherArgs a) {
  device::let_successor_start();
  device::wait_for_predecessor();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int sequence = static_cast<int>(blockIdx.y);
  const auto tokens_of = [&](int s) { return a.query_length[s] > 0 ? a.sequence_length[s] : 0; };
  const int first = static_cast<int>(blockIdx.x) * kBlockTokens + warp * kWarpTokens;
  const int tokens = tokens_of(sequence);
  if (first >= tokens) return;
  int before = 0;  // tokens of the sequences before
  for (int s = lane; s < sequence; s += kWarp)
    before += tokens_of(s);
  before = __reduce_add_sync(0xffffffffu, before);
#pragma unroll
  for (int i = 0; i < kWarpTokens; ++i) {
    const int position = first + i;
    if (position >= tokens) return;
    const int entry = position / a.tokens_per_block;
    const int64_t block = a.blocks[sequence * a.blocks_per_sequence + entry];
    const int slot = position - entry * a.tokens_per_block;
    const auto* from = reinterpret_cast<const uint4*>(a.plane + block * a.block_bytes) +
                       int64_t{slot} * a.cached_packs;
    const int64_t to = int64_t{before} + position;
    uint4* latent = a.latents + to * a.latent_packs;
    uint4* key = a.shared_key + to * (a.cached_packs - a.latent_packs) - a.latent_packs;
    for (int pack = lane; pack < a.cached_packs; pack += kWarp)
      (pack < a.latent_packs ? latent : key)[pack] = from[pack];
  }
}

void gather(const Launch& launch, const MlaShape& shape, const Batch& batch, const Made& made) {
  const SequenceRows rows = mla_sequences(launch, RequestType::kContext);
  const KvCacheView& cache = *rows.cache;
  const GatherArgs args{.sequence_length = rows.sequence_length + batch.first,
                        .query_length = rows.query_length + batch.first,
                        .blocks = rows.blocks(batch.first),
                        .blocks_per_sequence = rows.blocks_per_sequence,
                        .plane = cache.pool + cache.k_offset,
                        .block_bytes = cache.block_bytes,
                        .tokens_per_block = cache.tokens_per_block,
                        .latent_packs = shape.latent_size / kPackOf<__half>,
                        .cached_packs = shape.cached() / kPackOf<__half>,
                        .latents = reinterpret_cast<uint4*>(made.latents),
                        .shared_key = reinterpret_cast<uint4*>(made.shared_key)};
  const dim3 grid(static_cast<unsigned>((batch.longest + kBlockTokens - 1) / kBlockTokens),
                  static_cast<unsigned>(batch.rows.size()));
  device::launch_kernel("gather_latents", *launch.queue, grid, dim3(kGatherThreads), 0,
                        gather_latents, args);
}

// ---- expand ----

const Op& matmul() {
  static const Op& op = *find_op("matmul");
  return op;
}

/// The tactic of matmul for many rows of 16 bits.
const Tactic& product() {
  static const auto found =
      std::ranges::find(matmul().tactics, std::string_view("matmul_wgmma_cuda"), &Tactic::name);
  CHECK(found != matmul().tactics.end());
  return *found;
}

/// Keys without their rotated part, and values, of `heads` heads from `head` on.
void expand(const Launch& launch, const MlaShape& shape, int64_t tokens, int head, int heads,
            const Made& made) {
  const Tensor& kv_b = launch.in[In::kKvB];
  const int64_t latent = shape.latent_size, columns = int64_t{heads} * kMadeSize;
  std::byte* weight = kv_b.as<std::byte>() + int64_t{head} * kMadeSize * latent * 2;
  const std::array in = {Tensor(made.latents, kv_b.dtype, std::array{tokens, latent}),
                         Tensor(weight, kv_b.dtype, std::array{columns, latent})};
  const std::array out = {Tensor(made.heads, kv_b.dtype, std::array{tokens, columns})};
  ir::Attrs attributes;
  attributes.set("dtype", std::string(ir::dtype_name(kv_b.dtype)));
  const std::shared_ptr<const void> parsed = matmul().parse_attrs(attributes);
  Launch expansion;
  expansion.in = in;
  expansion.out = out;
  expansion.attributes = parsed.get();
  expansion.queue = launch.queue;
  product().run(expansion);
}

// ---- attend ----

void attend(const Launch& launch, const MlaShape& shape, const Batch& batch, int head, int heads,
            const Made& made) {
  const AttentionShape attention{.heads = shape.heads,
                                 .kv_heads = shape.heads,
                                 .head_size = P::kKeySize,
                                 .v_head_size = P::kValueSize,
                                 .scale = static_cast<float>(launch.attrs<MlaAttention>().scale)};
  context::ExpandedArgs args{};
  args.a = attention_args(launch, attention, 0);
  args.a.out = static_cast<uint16_t*>(args.a.out) + head * P::kValueSize;
  args.a.sequence_length += batch.first;
  args.a.query_start += batch.first;
  args.a.query_length += batch.first;
  args.sequences = static_cast<int>(batch.rows.size());
  args.key_heads = heads;
  const int64_t units = context::cut_units<P>(batch.rows, heads, args);
  constexpr int kBoxSize = context::kBoxSize;
  constexpr auto kSwizzle = device::Swizzle::k128Bytes;
  args.shared_key = device::make_matrix_map(made.shared_key, batch.tokens, kRopeSize, P::kTile,
                                            kBoxSize, kSwizzle);
  const auto make_map = [&](int first, int size) {
    return device::make_tensor_map(
        reinterpret_cast<uint16_t*>(made.heads) + first, {size, heads, batch.tokens},
        {kMadeSize, int64_t{heads} * kMadeSize}, {kBoxSize, 1, P::kTile}, kSwizzle);
  };
  const CUtensorMap q =
      device::make_tensor_map(launch.in[In::kQ].as<uint16_t>() + head * P::kKeySize,
                              {P::kKeySize, heads, launch.in[In::kQ].dim(0)},
                              {P::kKeySize, int64_t{shape.heads} * P::kKeySize},
                              {kBoxSize, 1, args.groups * context::kGroupRows}, kSwizzle);
  context::attend_units<void, P>(*launch.queue, units, args, q, make_map(0, kNopeSize),
                                 make_map(kNopeSize, kValueSize));
}

void attend_batch(const Launch& launch, const MlaShape& shape, const Batch& batch) {
  const Made made(launch, shape, batch.tokens);
  gather(launch, shape, batch, made);
  const int turns = (shape.heads - 1) / heads_that_fit(shape, batch.tokens) + 1;
  const int heads = (shape.heads - 1) / turns + 1;
  for (int head = 0; head < shape.heads; head += heads) {
    const int count = std::min(heads, shape.heads - head);
    expand(launch, shape, batch.tokens, head, count, made);
    attend(launch, shape, batch, head, count, made);
  }
}

bool is_aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

/// Whether the cache, as it lies, and the tensors can be read 16 bytes at a time.
bool fits(const Launch& launch, const KvCacheView& cache) {
  return cache.dtype == launch.in[In::kQ].dtype && has_packed_keys(cache) &&
         is_aligned(launch.in[In::kQ].data) && is_aligned(launch.in[In::kKvB].data);
}

}  // namespace

std::string mla_attention_expanded_cuda_why_not(const Launch& launch,
                                                const device::Properties& properties) {
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  const ir::DType type = launch.in[In::kQ].dtype;
  if (properties.sm != 90) return "needs a Hopper GPU (compute capability 9.0)";
  if (type == ir::DType::kF32) return "needs bf16 or f16 activations";
  if (launch.in[In::kKvB].dtype != type) return "kv_b is of another type than q";
  if (shape.nope_size != kNopeSize || shape.rope_size != kRopeSize || shape.v_size != kValueSize) {
    return str("needs heads of ", kNopeSize, " + ", kRopeSize, " and values of ", kValueSize);
  }
  if (shape.latent_size % kLatentStep != 0) {
    return str("the latent is not a multiple of ", kLatentStep);
  }
  return mla_attention_cuda_why_not(launch, properties);  // which takes tokens in generation
}

/// The same for every launch: how long sequences are is not known when memory is planned.
int64_t mla_attention_expanded_cuda_workspace(const Launch& launch,
                                              const device::Properties& properties) {
  return std::max(kWorkspaceBytes, mla_attention_absorbed_cuda_workspace(launch, properties));
}

// What the cache is like is known only here.
void mla_attention_expanded_cuda(const Launch& launch) {
  const SequenceRows sequences = mla_sequences(launch, RequestType::kContext);
  const auto contexts = static_cast<size_t>(count_context_sequences(launch));
  if (contexts == 0 || !fits(launch, *sequences.cache)) return mla_attention_absorbed_cuda(launch);
  // Steps with context sequences are never captured, so launches may follow the host's lengths.
  const auto on_host = [&](SequenceInput input) {
    return std::span<const int32_t>(launch.in[In::kSequence + input].as<int32_t>(),
                                    static_cast<size_t>(sequences.num_sequences));
  };
  const std::span<const int32_t> past = on_host(kHostPastLengths), rows = on_host(kHostQueryLength);
  const MlaShape shape = mla_shape(launch.attrs<MlaAttention>());
  size_t first = 0;
  while (first < contexts) {
    const Batch batch = next_batch(shape, past.first(contexts), rows.first(contexts), first);
    first += batch.rows.size();
    if (batch.tokens == 0) continue;
    if (heads_that_fit(shape, batch.tokens) > 0) {
      attend_batch(launch, shape, batch);
    } else {
      mla_attention_absorbed_rows_cuda(launch, batch.first, batch.rows);
    }
  }
  mla_attention_absorbed_rows_cuda(launch, static_cast<int>(contexts), rows.subspan(contexts));
}

}  // namespace millrace::ops
