#include "runtime/session_setup.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "base/check.h"
#include "base/error.h"
#include "ops/op.h"
#include "ops/rope_angles/rope_angles_tactics.h"

namespace millrace::runtime {
namespace {

// Logits are computed for at most this many rows at once: prompt log-probabilities of long prompts
// go through the head in pieces.
constexpr int kHeadRows = 64;
// Of free memory, for buffers of sessions that are made as large as memory allows. The rest is for
// captured steps and the libraries.
constexpr int kUsablePercent = 95;
constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();

void check(const SetupOptions& options, const engine::Manifest& manifest) {
  const auto refuse = [&](const std::string& what, const std::string& advice) {
    throw_bad_input(what, manifest.model, advice);
  };
  if (options.batch_size < 1 || options.max_context_length < 1 || options.max_new_tokens < 0) {
    refuse("batch size and lengths must be positive", "give at least 1 for each");
  }
  if (options.beam_width < 1 || options.beam_width > manifest.max_beam_width) {
    refuse(str("a beam width of ", options.beam_width, " exceeds the engine's limit of ",
               manifest.max_beam_width),
           "build it with a larger --num-beams");
  }
  if (options.batch_size > manifest.max_batch_size) {
    refuse(str("a batch of ", options.batch_size, " exceeds the engine's limit of ",
               manifest.max_batch_size),
           "build it with a larger --max-batch-size");
  }
  if (int64_t{options.batch_size} * options.beam_width > kMaxInt) {
    refuse(str(options.batch_size, " requests of ", options.beam_width, " beams are too many"),
           "take fewer at a time");
  }
  const int64_t length = int64_t{options.max_context_length} + options.max_new_tokens;
  if (length > manifest.max_seq_len) {
    refuse(
        str("sequences of ", length, " tokens exceed the engine's limit of ", manifest.max_seq_len),
        "shorten the prompt, lower --max-new-tokens or raise --max-seq-len");
  }
  if (manifest.kind == engine::ModelKind::kEncoderDecoder &&
      (options.max_encoder_length < 1 || options.max_encoder_length > manifest.max_encoder_len)) {
    refuse(str("inputs of ", options.max_encoder_length, " rows do not fit the encoder's limit of ",
               manifest.max_encoder_len),
           "shorten the prompt");
  }
  if (options.tokens_per_block < 1 ||
      !std::has_single_bit(static_cast<unsigned>(options.tokens_per_block))) {
    refuse(str("--tokens-per-block ", options.tokens_per_block, " is not a power of two"),
           "use 16, 32, 64 or 128");
  }
}

ir::DType kv_type(const std::string& name) {
  const auto dtype = ir::parse_dtype(name);
  CHECK(dtype.has_value(), "KV type ", name);
  return *dtype;
}

// Blocks that one sequence may hold: all of its length, or what a window keeps alive.
int64_t blocks_per_sequence(const engine::KvGroup& group, int tokens_per_block, int length,
                            int chunk) {
  const auto blocks = [&](int64_t tokens) {
    return (tokens + tokens_per_block - 1) / tokens_per_block;
  };
  if (group.window == 0) return blocks(length);
  const int64_t live = blocks(int64_t{group.window} + chunk - 1) + 1 + blocks(group.sink_tokens);
  return std::min(blocks(length), live);
}

// Blocks that one request may hold. Beams share the whole blocks of the prompt; each has its own
// from the prompt's partial last block on.
int64_t blocks_per_request(const engine::KvGroup& group, int tokens_per_block,
                           const SetupOptions& options, int chunk) {
  const int length = options.max_context_length + options.max_new_tokens;
  const int64_t alone = blocks_per_sequence(group, tokens_per_block, length, chunk);
  if (options.beam_width == 1) return alone;
  const int64_t shared = std::min<int64_t>(options.max_context_length / tokens_per_block, alone);
  const int64_t own =
      (int64_t{options.max_new_tokens} + tokens_per_block - 1) / tokens_per_block + 1;
  return std::min(shared + options.beam_width * own, options.beam_width * alone);
}

// What a session needs, by these options.
struct Sizes {
  StepperOptions stepper;
  int64_t kv_bytes = 0;    // of the blocks that the maxima need
  bool too_large = false;  // beyond all memories: nothing else is filled in
};

StepLimits step_limits(const engine::Engine& engine, const SetupOptions& options,
                       int64_t max_blocks) {
  const engine::Manifest& manifest = engine.manifest;
  const auto max_rows = static_cast<int>(manifest.max_num_tokens);
  const int sequences = options.batch_size * options.beam_width;
  const ir::Shape* prompts = prompt_table_shape(engine.graph);
  return {.max_sequences = sequences,
          .max_num_tokens = max_rows,
          .max_logit_rows = std::min(std::max(kHeadRows, sequences), std::max(max_rows, sequences)),
          .max_blocks = static_cast<int>(max_blocks),
          .num_groups = static_cast<int>(engine.kv_groups.size()),
          .beams = options.beam_width,
          .vocab_size = static_cast<int>(manifest.vocab_size),
          .prompt_table_rows = prompts == nullptr ? 0 : static_cast<int>((*prompts)[1].value())};
}

// Whether numbers of blocks have 31 bits and a pool less than 64 TiB, which is found out without
// computing what may not fit into an integer.
bool is_reasonable(const engine::KvGroup& group, const KvPool::GroupSize& pool) {
  constexpr double kMostBytes = 0x1p46, kBytesPerElement = 4;
  constexpr int kScales = 2;  // beside each K and V
  const double elements = double{1} * group.k_size + group.v_size + kScales;
  const double bytes = kBytesPerElement * elements * group.kv_heads * pool.tokens_per_block *
                       static_cast<double>(group.layers.size()) *
                       static_cast<double>(pool.num_blocks);
  return pool.num_blocks <= kMaxInt && bytes <= kMostBytes;
}

// The blocks of each group in proportion to those that it needs, so that they fill `bytes`.
void grow_pools(int64_t bytes, Sizes* sizes) {
  if (sizes->kv_bytes == 0 || bytes <= sizes->kv_bytes) return;
  const double factor = static_cast<double>(bytes) / static_cast<double>(sizes->kv_bytes);
  for (KvPool::GroupSize& pool : sizes->stepper.kv) {
    const double blocks = static_cast<double>(pool.num_blocks) * factor;
    pool.num_blocks = static_cast<int64_t>(std::min(blocks, double{kMaxInt}));
  }
}

// CUDA_LAUNCH_BLOCKING=1 makes a kernel that fails an error of its launch, which names it. In a
// captured graph there would be no such launch.
bool launches_block() {
  const char* blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  return blocking != nullptr && std::string_view(blocking) != "0";
}

Sizes sizes_of(const engine::Engine& engine, const SetupOptions& options) {
  const int length = options.max_context_length + options.max_new_tokens;
  const int tokens_per_block = options.contiguous_kv_cache ? length : options.tokens_per_block;
  const auto chunk = static_cast<int>(
      std::min<int64_t>(engine.manifest.max_num_tokens, options.max_context_length));
  Sizes sizes;
  sizes.stepper.max_seq_len = length;
  sizes.stepper.max_logprobs = std::max(1, options.max_logprobs);
  sizes.stepper.kv_dtype = kv_type(engine.manifest.kv_dtype);
  sizes.stepper.capture = options.captured_graphs && !launches_block();
  int64_t max_blocks = (int64_t{length} + tokens_per_block - 1) / tokens_per_block;
  for (const engine::KvGroup& group : engine.kv_groups) {
    const int positions = group.cross ? options.max_encoder_length : length;
    const int tokens = options.contiguous_kv_cache ? positions : tokens_per_block;
    const int64_t each = group.cross ? blocks_per_sequence(group, tokens, positions, chunk)
                                     : blocks_per_request(group, tokens, options, chunk);
    const int64_t blocks = options.batch_size * each;
    max_blocks = std::max(max_blocks, group.cross ? each : 0);
    sizes.stepper.kv.push_back({blocks, tokens});
    sizes.too_large = sizes.too_large || !is_reasonable(group, sizes.stepper.kv.back());
    if (sizes.too_large) continue;
    sizes.kv_bytes += blocks * kv_block_bytes(group, tokens, sizes.stepper.kv_dtype);
  }
  if (sizes.too_large) return sizes;
  grow_pools(options.kv_memory, &sizes);
  sizes.stepper.limits = step_limits(engine, options, max_blocks);
  return sizes;
}

}  // namespace

std::vector<ops::RopeScaling> rope_rules(const engine::Engine& engine) {
  std::vector<ops::RopeScaling> rules;
  for (const ir::NodeId id : engine.graph.order()) {
    const ir::Node& node = engine.graph.node(id);
    if (node.op != ops::RopeAngles::kName) continue;
    rules.push_back(ops::RopeAnglesPlan(ops::from_attrs<ops::RopeAngles>(node.attrs)).scaling);
  }
  return rules;
}

SessionParts set_up_session(const std::shared_ptr<const LoadedEngine>& loaded,
                            const SetupOptions& options) {
  const engine::Engine& engine = loaded->engine();
  const engine::Manifest& manifest = engine.manifest;
  check(options, manifest);
  const Sizes sizes = sizes_of(engine, options);
  const StepperOptions& stepper = sizes.stepper;
  if (sizes.too_large) {
    throw_bad_input(str("a KV cache of ", options.batch_size, " sequences of ", stepper.max_seq_len,
                        " tokens fits no memory"),
                    manifest.model,
                    "shorten the sequences, take fewer at a time, or change --tokens-per-block");
  }
  if (options.kv_memory > 0 && sizes.kv_bytes > options.kv_memory) {
    throw_bad_input(str("the KV cache of ", options.batch_size, " sequences of ",
                        stepper.max_seq_len, " tokens needs ", format_bytes(sizes.kv_bytes),
                        ", more than the ", format_bytes(options.kv_memory), " of --kv-memory"),
                    manifest.model, "shorten the sequences or raise --kv-memory");
  }
  SessionParts parts;
  std::vector<KvBlocks> pools;
  for (const KvPool::GroupSize& group : stepper.kv) {
    pools.emplace_back(group.num_blocks, group.tokens_per_block);
    parts.kv_blocks += group.num_blocks;
  }
  parts.stepper = std::make_unique<GraphStepper>(loaded, stepper);
  const ir::Shape* prompts = prompt_table_shape(engine.graph);
  const SessionLimits limits{
      .batch_size = options.batch_size,
      .beams = options.beam_width,
      .max_context_length = options.max_context_length,
      .max_new_tokens = options.max_new_tokens,
      .max_seq_len = stepper.max_seq_len,
      .max_num_tokens = stepper.limits.max_num_tokens,
      .max_logprobs = options.max_logprobs,
      .vocab_size = static_cast<int>(manifest.vocab_size),
      .prompt_table_rows = stepper.limits.prompt_table_rows,
      .prompt_table_width = prompts == nullptr ? 0 : static_cast<int>((*prompts)[2].value()),
      .padded = options.padded,
      .encoder = {.kind = manifest.kind,
                  .vocab_size = static_cast<int>(manifest.vocab_size),
                  .max_length = options.max_encoder_length,
                  .features = static_cast<int>(manifest.encoder_features),
                  .decoder_start_token_id = loaded->decoder_start_token_id}};
  parts.batch =
      std::make_unique<DecodeBatch>(limits, engine.kv_groups, std::move(pools), rope_rules(engine));
  return parts;
}

int batch_that_fits(const std::shared_ptr<const LoadedEngine>& loaded, SetupOptions options) {
  const engine::Engine& engine = loaded->engine();
  const auto most = static_cast<int>(
      std::min<int64_t>(std::max(1, options.batch_size), engine.manifest.max_batch_size));
  options.batch_size = 1;
  check(options, engine.manifest);
  const int64_t unclaimed = loaded->device->free_bytes() - loaded->weights->pending_bytes();
  const int64_t free = unclaimed / 100 * kUsablePercent;
  const auto fits = [&](int batch) {
    options.batch_size = batch;
    const Sizes sizes = sizes_of(engine, options);
    return !sizes.too_large && plan_memory(*loaded, sizes.stepper).session() <= free &&
           (options.kv_memory == 0 || sizes.kv_bytes <= options.kv_memory);
  };
  int largest = 1, too_many = most + 1;
  while (too_many - largest > 1) {
    const int middle = (largest + too_many) / 2;
    (fits(middle) ? largest : too_many) = middle;
  }
  return largest;
}

}  // namespace millrace::runtime
