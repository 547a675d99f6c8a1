// Engines: compiled models, opened on a device. Sessions run them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "millrace/error.h"
#include "millrace/sampling.h"
#include "millrace/text.h"

namespace millrace {

namespace runtime {
struct LoadedEngine;
}

/// How a model is compiled and where it runs. The defaults are those of the command line.
struct EngineOptions {
  std::string device = "auto";            // auto, cpu, cuda, cuda:N
  std::string dtype = "auto";             // auto, fp32, bf16, fp16
  std::string kv_dtype = "auto";          // auto, fp32, bf16, fp16, fp8, int8
  int64_t max_batch_size = 0;             // requests of a step; 0: 256 sequences
  int64_t max_seq_len = 0;                // tokens of a sequence; 0: the model's
  int64_t max_num_tokens = 0;             // tokens of a step; 0: 8192
  int64_t max_beam_width = 0;             // beams of a request; 0: generation_config's num_beams
  int64_t max_prompt_table_rows = 0;      // virtual tokens of a request (prompt tuning); 0: none
  int threads = 0;                        // 0: what affinity and control groups allow
  std::optional<uint64_t> dummy_weights;  // seed: only config.json is needed
  int attention_window = 0;               // for models that bring none; 0: none
  int sink_tokens = 0;
  bool deterministic = false;  // batch-invariant arithmetic
  bool embeddings = false;     // the engine gives last hidden states where others give logits
  int multi_block = 0;  // pieces of a sequence in generation attention, 1 to 32; 0: by its length

  bool use_cache = true;  // keep the compiled engine of a model folder
  std::string cache_dir;  // empty: $XDG_CACHE_HOME/millrace

  std::vector<std::string> disabled_passes;
  std::string dump_graph;        // folder; empty: none
  int64_t max_build_memory = 0;  // of trials, made without a cache then; 0: 1 GiB, GPU: 2 GiB
  std::string timing_cache;      // file; empty: open() has one in the cache folder, build() none
};

/// What an engine was made of and for.
struct EngineInfo {
  std::string model, architecture, dtype, kv_dtype, device, device_name, version, commit;
  int64_t vocab_size = 0, parameters = 0, max_positions = 0;
  int64_t max_batch_size = 0, max_seq_len = 0, max_num_tokens = 0, max_beam_width = 1;
  std::string kind;              // decoder, encoder_decoder, encoder
  int64_t max_encoder_len = 0;   // encoder-decoder models: rows of an input
  int64_t encoder_features = 0;  // speech: features of a frame, two frames a row
  bool from_cache = false;       // found, not built
  double build_s = 0;
  std::vector<std::pair<std::string, double>> build_times_ms;  // by part, when it was built
  double tactics_s = 0;                                        // of build_s: choosing tactics
  int64_t tactics_timed = 0, tactics_known = 0;                // known: from the timing cache
  int64_t context_arena_bytes = 0, generation_arena_bytes = 0;
  std::vector<std::string>
      notes;  // what a user should know: skipped tensors, dropped tactics, no cache
};

/// THREAD: sessions of one engine may run on several threads, one step at a time each.
class Engine {
 public:
  /// `model`: a folder as published on Hugging Face, the id of one in the local hub cache, or an
  /// engine file. A folder is compiled, or its cached engine reused. Weights are planned, and read
  /// when a session is set up. Throws Error.
  static std::shared_ptr<Engine> open(const std::string& model, const EngineOptions& options = {});
  /// Compiles a folder into a file that holds the weights too. Throws Error; nothing is left behind
  /// then.
  static EngineInfo build(const std::string& model, const std::string& path,
                          const EngineOptions& options = {});

  const EngineInfo& info() const { return info_; }
  /// Empty when the model folder has no tokenizer.
  const std::optional<Tokenizer>& tokenizer() const { return tokenizer_; }
  /// What generation_config.json asks for: end tokens, sampling, lengths.
  const SamplingParams& default_sampling() const { return default_sampling_; }
  const std::vector<int>& end_token_ids() const { return end_token_ids_; }
  /// What the decoder of an encoder-decoder model begins with; -1: unknown, or another model.
  int decoder_start_token_id() const { return decoder_start_token_id_; }

  const std::shared_ptr<const runtime::LoadedEngine>& loaded() const { return loaded_; }

 private:
  Engine() = default;

  EngineInfo info_;
  std::optional<Tokenizer> tokenizer_;
  SamplingParams default_sampling_;
  std::vector<int> end_token_ids_;
  int decoder_start_token_id_ = -1;
  std::shared_ptr<const runtime::LoadedEngine> loaded_;
};

}  // namespace millrace
