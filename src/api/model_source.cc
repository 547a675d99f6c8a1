#include "api/model_source.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <sys/stat.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/version.h"
#include "checkpoint/model_folder.h"

namespace millrace::api {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Tokenizer files may be many megabytes: their size and time stand for them, as for weights.
std::string stamp(const fs::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) return "";
  return str(path.filename().string(), " ", info.st_size, " ", info.st_mtim.tv_sec, ".",
             info.st_mtim.tv_nsec, "\n");
}

compiler::ComputeType compute_type(const std::string& name) {
  const auto type = compiler::parse_compute_type(name);
  if (!type) {
    throw_bad_input(str("unknown type '", name, "'"), "--dtype", "use auto, fp32, bf16 or fp16");
  }
  return *type;
}

/// Empty for "auto".
std::optional<ir::DType> kv_type(const std::string& name) {
  const auto type = compiler::parse_kv_type(name);
  if (!type && name != "auto") {
    throw_bad_input(str("unknown type '", name, "'"), "--kv-dtype",
                    "use auto, fp32, bf16, fp16, fp8 or int8");
  }
  return type;
}

}  // namespace

ModelSource ModelSource::open(const std::string& model, bool dummy_weights) {
  const std::string folder = resolve_model_folder(model);
  ModelSource source{folder, HfConfig::load(folder), std::nullopt};
  if (!dummy_weights) source.checkpoint = Checkpoint::open(folder);
  return source;
}

std::vector<engine::Asset> ModelSource::assets() const {
  std::vector<engine::Asset> assets;
  for (TextAsset& asset : Tokenizer::collect_assets(folder)) {
    assets.push_back({std::move(asset.name), std::move(asset.bytes)});
  }
  for (const char* name : {"config.json", "generation_config.json"}) {
    const fs::path path = fs::path(folder) / name;
    if (fs::is_regular_file(path)) assets.push_back({name, read_file(path)});
  }
  return assets;
}

std::string ModelSource::cache_key(const compiler::BuildOptions& options,
                                   const device::Properties& device) const {
  StreamHash hash;
  hash.update(str(version(), " ", commit(), "\n", options.canonical_text(), "\n"));
  hash.update(device.kind == device::Kind::kCpu
                  ? str("cpu ", device.name, " ", device::isa_name(device.isa), "\n")
                  : str("cuda sm_", device.sm, "\n"));
  hash.update(fs::absolute(folder).string() + "\n");
  hash.update(read_file(fs::path(folder) / "config.json"));
  if (checkpoint) {
    for (const CheckpointFile& file : checkpoint->files()) {
      hash.update(str(file.path, " ", file.size, " ", file.mtime_ns, " ", file.header_hash, "\n"));
    }
  }
  std::error_code error;
  std::vector<fs::path> others;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() != ".safetensors") others.push_back(entry.path());
  }
  std::sort(others.begin(), others.end());
  for (const fs::path& path : others)
    hash.update(stamp(path));
  return to_hex(hash.digest128());
}

compiler::BuildOptions build_options(const EngineOptions& options, const ModelSource& source) {
  compiler::BuildOptions build;
  build.dtype = compute_type(options.dtype);
  build.kv_dtype = kv_type(options.kv_dtype);
  build.max_beam_width = options.max_beam_width;
  if (build.max_beam_width == 0) {
    build.max_beam_width =
        load_generation_defaults(source.folder, source.config).num_beams.value_or(1);
  }
  build.max_batch_size = options.max_batch_size > 0
                             ? options.max_batch_size
                             : std::max<int64_t>(1, build.max_batch_size / build.max_beam_width);
  build.max_prompt_table_rows = options.max_prompt_table_rows;
  if (options.max_num_tokens > 0) build.max_num_tokens = options.max_num_tokens;
  build.max_seq_len = options.max_seq_len;
  build.window = options.attention_window;
  build.sink_tokens = options.sink_tokens;
  build.deterministic = options.deterministic;
  build.multi_block = options.multi_block;
  build.embeddings = options.embeddings;
  build.dummy_seed = options.dummy_weights;
  build.disabled_passes = options.disabled_passes;
  build.dump_folder = options.dump_graph;
  build.max_build_memory = options.max_build_memory;
  build.timing_cache = options.timing_cache;
  return build;
}

SamplingParams sampling_from(const GenerationDefaults& d) {
  SamplingParams p;
  const auto whole = [](const std::vector<int64_t>& ids) {
    return std::vector<int>(ids.begin(), ids.end());
  };
  p.do_sample = d.do_sample.value_or(false);
  p.temperature = d.temperature.value_or(p.temperature);
  // transformers' own default, 50, holds for models that sample and do not say.
  p.top_k = static_cast<int>(d.top_k.value_or(p.do_sample ? 50 : 0));
  p.top_p = d.top_p.value_or(p.top_p);
  p.min_p = d.min_p.value_or(p.min_p);
  p.typical_p = d.typical_p.value_or(p.typical_p);
  p.repetition_penalty = d.repetition_penalty.value_or(p.repetition_penalty);
  p.no_repeat_ngram_size = static_cast<int>(d.no_repeat_ngram_size.value_or(0));
  p.num_beams = static_cast<int>(d.num_beams.value_or(1));
  p.num_return_sequences = static_cast<int>(d.num_return_sequences.value_or(1));
  p.length_penalty = d.length_penalty.value_or(p.length_penalty);
  p.early_stopping = d.early_stopping == "true"    ? EarlyStopping::kTrue
                     : d.early_stopping == "never" ? EarlyStopping::kNever
                                                   : EarlyStopping::kFalse;
  p.min_new_tokens = static_cast<int>(d.min_new_tokens.value_or(0));
  if (d.max_new_tokens) p.max_new_tokens = static_cast<int>(*d.max_new_tokens);
  for (const auto& word : d.bad_words_ids)
    p.bad_words.push_back(whole(word));
  p.suppress_tokens = whole(d.suppress_tokens);
  p.begin_suppress_tokens = whole(d.begin_suppress_tokens);
  if (d.forced_bos_token_id) p.forced_bos_token_id = static_cast<int>(*d.forced_bos_token_id);
  p.forced_eos_token_ids = whole(d.forced_eos_token_ids);
  return p;
}

}  // namespace millrace::api
