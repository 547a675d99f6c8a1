// What an engine holds: the graph, how to run it, its limits and where its weights are. Plain data:
// the compiler makes it, the file format stores it (engine_file.h), the runtime runs it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace millrace::engine {

/// How a model is run: by a prompt that it continues, by an input that it encodes and then writes
/// about, or by a text of which every token gets its result at once.
enum class ModelKind : uint8_t { kDecoder, kEncoderDecoder, kEncoder };
/// "decoder", "encoder_decoder", "encoder".
const char* model_kind_name(ModelKind kind);

/// What the engine was built for and from. Everything a user sees with `inspect`.
struct Manifest {
  std::string model;         // folder name or hub id
  std::string architecture;  // LlamaForCausalLM
  std::string version;       // Millrace version that built it
  std::string commit;
  std::string dtype;        // arithmetic and weights: fp32, bf16, fp16
  std::string kv_dtype;     // f32, bf16, f16, f8e4m3, i8
  std::string device;       // cpu, cuda
  std::string device_name;  // the machine it was built on
  std::string isa;          // least instruction set (cpu) or architecture (cuda)
  std::string options;      // the build options that were given, canonical text
  std::string source;       // the checkpoint: name, size and header hash of each file
  int64_t vocab_size = 0;
  int64_t max_positions = 0;  // what the model was made for
  int64_t parameters = 0;
  int64_t max_batch_size = 0;  // requests of a step
  int64_t max_beam_width = 1;
  int64_t max_seq_len = 0;     // tokens of a sequence
  int64_t max_num_tokens = 0;  // rows of a step
  bool untimed = false;        // tactics were guessed, not measured
  ModelKind kind = ModelKind::kDecoder;
  int64_t max_encoder_len = 0;   // rows that the encoder makes of one input; 0: no such encoder
  int64_t encoder_features = 0;  // numbers of a frame, where the encoder reads frames; 0: ids
};

/// Layers whose KV cache has one shape and window: one pool of blocks, one table of block numbers.
struct KvGroup {
  int kv_heads = 0;
  int k_size = 0, v_size = 0;  // elements of one head's K and V vector
  int window = 0;              // 0: none
  int sink_tokens = 0;
  std::vector<std::string>
      layers;          // names of the graph's state inputs, in the order of their planes in a block
  bool cross = false;  // made of the encoder's output once, as long as that, then only read
};

/// A part of a weight as stored: `rows` rows of `row_bytes` bytes, one after the other.
struct WeightSlice {
  int32_t file = 0;  // index into Engine::files; -1: this engine file
  int64_t offset = 0;
  int64_t rows = 0;
  int64_t row_bytes = 0;
  ir::DType dtype = ir::DType::kF32;
  std::string tensor;  // the checkpoint's name
  // Which of the tensor's rows these are: what generated weights follow from.
  int64_t first_row = 0;
  int64_t tensor_rows = 0;  // 0: these are all
};

/// One weight of the graph. `shape` and `dtype` are what ops read; the slices are stacked along
/// dimension 0, then transposed, or rows divided by their length, if asked, then converted.
struct Weight {
  std::string name;  // as in the graph's weight node
  std::vector<int64_t> shape;
  ir::DType dtype = ir::DType::kF32;
  bool transposed = false;
  std::vector<WeightSlice> slices;
  bool unit_rows = false;
};

/// A file that weights lie in, as it was when the engine was built.
struct SourceFile {
  std::string path;
  int64_t size = 0;
  int64_t mtime_ns = 0;
  std::string header_hash;  // of what describes the tensors
};

/// Which tactic runs a node when its rows (dimension 0 of its first output) are at most `max_rows`.
struct TacticChoice {
  int64_t max_rows = 0;
  std::string tactic;
};

/// One node of the graph that does work, in execution order.
struct PlannedLaunch {
  int32_t node = 0;                   // position in the graph's execution order
  std::vector<TacticChoice> choices;  // ascending max_rows
};

/// Where a value or a launch's workspace lies in the arena. Offsets are 64-byte aligned.
struct PlannedBuffer {
  int64_t offset = 0;
  int64_t bytes = 0;
};

/// Memory for steps up to these sizes. All steps of a regime use the same addresses.
struct RegimePlan {
  std::string name;                // "context", "generation"
  std::vector<ir::Symbol> maxima;  // value of each symbol that the offsets are made for
  int64_t arena_bytes = 0;
  std::vector<PlannedBuffer> values;      // by value id; bytes 0: needs no memory of its own
  std::vector<PlannedBuffer> workspaces;  // by index into launches
};

/// A run of launches that a device graph may capture, or that must be launched one by one.
struct CaptureRegion {
  int32_t begin = 0, end = 0;  // launches [begin, end)
  bool capturable = false;
};

/// A file of the model folder that is kept in the engine: tokenizer, chat template,
/// generation_config.json.
struct Asset {
  std::string name;
  std::string bytes;
};

/// A graph and how to run it.
struct PlannedGraph {
  ir::Graph graph{"graph"};  // lowered; value ids are numbers in its text form
  std::vector<PlannedLaunch> launches;
  std::vector<RegimePlan> regimes;      // context, generation; of an encoder: context
  std::vector<CaptureRegion> captures;  // of the generation regime
  int32_t head_begin =
      0;  // first launch that works on logit rows (L) only: may run again on other rows
};

/// The graph of the engine itself is the one that steps run.
struct Engine : PlannedGraph {
  Manifest manifest;
  /// Encoder-decoder models: makes the cross KV caches of a sequence when it begins.
  std::optional<PlannedGraph> encoder;
  std::vector<KvGroup> kv_groups;
  std::vector<Weight> weights;
  std::vector<SourceFile> files;
  bool dummy_weights = false;
  uint64_t dummy_seed = 0;
  std::vector<Asset> assets;

  const Asset* find_asset(std::string_view name) const;
};

}  // namespace millrace::engine
