// Everything a user may choose when an engine is built, and what a build reports.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "compiler/pass.h"
#include "ir/dtype.h"

namespace millrace::compiler {

/// Arithmetic and weight types, by the names of the command line.
enum class ComputeType : uint8_t { kAuto, kFp32, kBf16, kFp16 };
std::optional<ComputeType> parse_compute_type(std::string_view name);
const char* compute_type_name(ComputeType type);
/// Storage of the KV cache by the names of the command line; empty for another name and for "auto".
std::optional<ir::DType> parse_kv_type(std::string_view name);
std::string_view kv_type_name(ir::DType type);

struct BuildOptions {
  ComputeType dtype = ComputeType::kAuto;
  std::optional<ir::DType> kv_dtype = std::nullopt;  // empty: that of dtype
  int64_t max_batch_size = 256;
  int64_t max_seq_len = 0;  // 0: the model's
  int64_t max_num_tokens = 8192;
  int64_t max_beam_width = 1;
  int64_t max_prompt_table_rows = 0;  // virtual tokens of a sequence
  int window = 0;                     // sliding window for models that bring none; 0: none
  int sink_tokens = 0;
  std::optional<uint64_t> dummy_seed;  // weights are generated
  std::vector<std::string> disabled_passes;
  std::string dump_folder;
  int64_t max_build_memory = 0;  // of the profiler; 0: 1 GiB, on a GPU 2 GiB
  std::string timing_cache;      // file; empty: none
  bool profile = true;           // false: tactics by preference only
  bool deterministic = false;  // one tactic for every number of rows: bits do not follow the batch
  bool embeddings = false;     // the graph ends in the last hidden states, not in logits
  int multi_block = 0;         // pieces of a sequence in generation attention; 0: by its length

  /// The options that change what is built, as canonical text: part of the cache key.
  std::string canonical_text() const;
};

/// How long a build's parts took and what it left aside.
struct BuildReport {
  std::vector<PassTime> passes;
  double trace_ms = 0, tactics_ms = 0, total_ms = 0;
  int64_t tactics_timed = 0, tactics_from_cache = 0;
  std::vector<std::string> notes;  // dropped tactics, skipped tensors
};

}  // namespace millrace::compiler
