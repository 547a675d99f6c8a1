#include "millrace/engine.h"

#include <chrono>
#include <filesystem>

#include "api/model_source.h"
#include "base/error.h"
#include "compiler/build.h"
#include "engine/engine_cache.h"
#include "runtime/graph_stepper.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::shared_ptr<device::Device> open_device(const EngineOptions& options) {
  return device::make_device(options.device, options.threads);
}

// Flags that say otherwise than the file are refused: the file cannot change.
void check_contradictions(const engine::Manifest& m, const EngineOptions& options) {
  const auto refuse = [&](const std::string& flag, const std::string& built) {
    throw_bad_input(str(flag, " contradicts the engine file, which was built with ", built),
                    m.model, "leave the flag out, or build another engine");
  };
  if (options.dtype != "auto" && options.dtype != m.dtype) refuse("--dtype", m.dtype);
  if (options.kv_dtype != "auto") {
    const auto built = ir::parse_dtype(m.kv_dtype);
    if (compiler::parse_kv_type(options.kv_dtype) != built) {
      refuse("--kv-dtype", std::string(compiler::kv_type_name(*built)));
    }
  }
  if (options.max_batch_size > m.max_batch_size) {
    refuse("--max-batch-size", str(m.max_batch_size));
  }
  if (options.max_beam_width > m.max_beam_width) refuse("--num-beams", str(m.max_beam_width));
  if (options.max_seq_len > m.max_seq_len) refuse("--max-seq-len", str(m.max_seq_len));
  if (options.max_num_tokens > m.max_num_tokens) refuse("--max-num-tokens", str(m.max_num_tokens));
  if (options.dummy_weights) refuse("--dummy-weights", "the checkpoint's weights");
  if (options.multi_block > 0) refuse("--multi-block", "a split by length");
  if (options.max_build_memory > 0) refuse("--max-build-memory", "tactics that are in it");
  if (options.embeddings) {
    throw_bad_input("an engine file gives logits, not hidden states", m.model,
                    "give the model's folder");
  }
  if (options.deterministic && m.options.find("deterministic") == std::string::npos) {
    refuse("--deterministic", "tactics that follow the number of rows");
  }
  if (options.attention_window > 0) refuse("--attention-window", "the model's own window");
}

void check_device(const engine::Manifest& m, const device::Properties& device) {
  const std::string advice = "build the engine on this machine";
  if (m.device != (device.kind == device::Kind::kCpu ? "cpu" : "cuda")) {
    throw_bad_input(str("the engine was built for ", m.device), m.model,
                    "choose that --device, or build it again");
  }
  if (device.kind == device::Kind::kCuda) {
    if (m.isa != str("sm_", device.sm)) {
      throw_bad_input(str("the engine was built for ", m.isa, ", this GPU is sm_", device.sm),
                      m.model, advice);
    }
    return;
  }
  bool known = false;
  for (const auto isa : {device::CpuIsa::kScalar, device::CpuIsa::kAvx2, device::CpuIsa::kAvx512,
                         device::CpuIsa::kAvx512Bf16}) {
    known = known || (m.isa == device::isa_name(isa) && isa <= device.isa);
  }
  if (!known) {
    throw_bad_input(str("the engine was built for a CPU with ", m.isa, ", this one has ",
                        device::isa_name(device.isa)),
                    m.model, advice);
  }
}

struct Built {
  engine::Engine engine;
  compiler::BuildReport report;
};

Built compile(const std::string& model, const api::ModelSource& source,
              const compiler::BuildOptions& options, device::Device& device) {
  Built built;
  const Checkpoint* checkpoint = source.checkpoint ? &*source.checkpoint : nullptr;
  try {
    built.engine =
        compiler::build_engine({model, source.config, checkpoint}, options, device, &built.report);
  } catch (Error& error) {
    if (error.where().empty()) error.add_context(source.folder);
    throw;
  }
  built.engine.assets = source.assets();
  return built;
}

std::string timing_cache_path(const EngineOptions& options, const engine::EngineCache& cache) {
  if (!options.timing_cache.empty() || !options.use_cache) return options.timing_cache;
  return (std::filesystem::path(cache.folder()) / "tactic_times.tsv").string();
}

void report(const compiler::BuildReport& r, EngineInfo* info);

// The engine of a model folder: from the cache, else built and, where the cache can be written,
// kept.
std::shared_ptr<const engine::EngineFile> open_folder(const std::string& model,
                                                      const EngineOptions& options,
                                                      device::Device& device, EngineInfo* info) {
  const api::ModelSource source = api::ModelSource::open(model, options.dummy_weights.has_value());
  const engine::EngineCache cache(options.cache_dir);
  compiler::BuildOptions build = api::build_options(options, source);
  // A dump of the passes needs them to run. A limit of trials needs trials: what would not fit is
  // wanted, not what was found without one.
  const bool limited = options.max_build_memory > 0;
  const bool use_cache = options.use_cache && options.dump_graph.empty() && !limited;
  const std::string key = source.cache_key(build, device.properties());
  if (use_cache && cache.has(key)) {
    try {
      auto file = engine::EngineFile::open(cache.path(key));
      cache.touch(key);
      info->from_cache = true;
      return file;
    } catch (const Error& error) {
      info->notes.push_back(str("the cached engine is built again: ", error.what()));
    }
  }
  build.timing_cache = limited ? options.timing_cache : timing_cache_path(options, cache);
  if (!build.timing_cache.empty()) {
    std::error_code ignored;  // a cache that cannot be written is noted below
    std::filesystem::create_directories(cache.folder(), ignored);
  }
  Built built = compile(model, source, build, device);
  report(built.report, info);
  if (use_cache) {
    try {
      cache.store(key, built.engine);
    } catch (const Error& error) {
      info->notes.push_back(str("the engine was not kept: ", error.what()));
    }
  }
  return engine::EngineFile::from_memory(std::move(built.engine));
}

void describe(const engine::Engine& engine, EngineInfo* info) {
  const engine::Manifest& m = engine.manifest;
  info->model = m.model;
  info->architecture = m.architecture;
  info->dtype = m.dtype;
  info->kv_dtype = m.kv_dtype;
  info->device = m.device;
  info->device_name = m.device_name;
  info->version = m.version;
  info->commit = m.commit;
  info->vocab_size = m.vocab_size;
  info->parameters = m.parameters;
  info->max_positions = m.max_positions;
  info->max_batch_size = m.max_batch_size;
  info->max_beam_width = m.max_beam_width;
  info->max_seq_len = m.max_seq_len;
  info->max_num_tokens = m.max_num_tokens;
  info->kind = engine::model_kind_name(m.kind);
  info->max_encoder_len = m.max_encoder_len;
  info->encoder_features = m.encoder_features;
  info->context_arena_bytes = engine.regimes[0].arena_bytes;
  info->generation_arena_bytes = engine.regimes[1].arena_bytes;
}

void report(const compiler::BuildReport& r, EngineInfo* info) {
  info->notes.insert(info->notes.end(), r.notes.begin(), r.notes.end());
  info->build_times_ms.emplace_back("trace", r.trace_ms);
  for (const compiler::PassTime& pass : r.passes) {
    info->build_times_ms.emplace_back(pass.name, pass.ms);
  }
  info->build_times_ms.emplace_back(
      str("tactics (", r.tactics_timed, " timed, ", r.tactics_from_cache, " known)"), r.tactics_ms);
  info->tactics_s = r.tactics_ms / 1e3;
  info->tactics_timed = r.tactics_timed;
  info->tactics_known = r.tactics_from_cache;
}

std::optional<Tokenizer> open_tokenizer(const engine::Engine& engine) {
  std::vector<TextAsset> assets;
  bool found = false;
  for (const engine::Asset& asset : engine.assets) {
    assets.push_back({asset.name, asset.bytes});
    found = found || asset.name == "tokenizer.json" || asset.name == "tokenizer.model" ||
            asset.name == "vocab.json";
  }
  if (!found) return std::nullopt;
  Tokenizer tokenizer = Tokenizer::open(assets, engine.manifest.model);
  if (tokenizer.vocab_size() > engine.manifest.vocab_size) {
    throw_bad_input(str("the tokenizer has ", tokenizer.vocab_size(),
                        " tokens, the model's vocabulary ", engine.manifest.vocab_size),
                    engine.manifest.model, "use the tokenizer that belongs to this model");
  }
  return tokenizer;
}

GenerationDefaults generation_defaults(const engine::Engine& engine) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    if (const engine::Asset* asset = engine.find_asset(name)) {
      return read_generation_defaults(
          HfConfig::parse(asset->bytes, str(engine.manifest.model, "/", name)));
    }
  }
  return {};
}

// As transformers: what generation_config.json says, else config.json, else the BOS token.
int decoder_start(const engine::Engine& engine, const GenerationDefaults& defaults) {
  std::optional<int64_t> token = defaults.decoder_start_token_id;
  if (const engine::Asset* config = engine.find_asset("config.json"); config != nullptr && !token) {
    token = read_generation_defaults(HfConfig::parse(config->bytes, config->name))
                .decoder_start_token_id;
  }
  return static_cast<int>(token.value_or(defaults.bos_token_id.value_or(-1)));
}

}  // namespace

std::shared_ptr<Engine> Engine::open(const std::string& model, const EngineOptions& options) {
  const auto start = Clock::now();
  std::shared_ptr<Engine> opened(new Engine());
  const std::shared_ptr<device::Device> device = open_device(options);
  std::shared_ptr<const engine::EngineFile> file;
  if (std::filesystem::is_regular_file(model)) {
    file = engine::EngineFile::open(model);
    check_contradictions(file->engine().manifest, options);
  } else {
    file = open_folder(model, options, *device, &opened->info_);
  }
  const engine::Engine& engine = file->engine();
  check_device(engine.manifest, device->properties());
  describe(engine, &opened->info_);
  opened->info_.build_s = seconds_since(start);

  opened->tokenizer_ = open_tokenizer(engine);
  const GenerationDefaults defaults = generation_defaults(engine);
  opened->default_sampling_ = api::sampling_from(defaults);
  opened->end_token_ids_.assign(defaults.eos_token_ids.begin(), defaults.eos_token_ids.end());
  if (engine.manifest.kind == engine::ModelKind::kEncoderDecoder) {
    opened->decoder_start_token_id_ = decoder_start(engine, defaults);
    // Of the decoder's tokens, the first is no new one.
    if (defaults.max_length && !defaults.max_new_tokens && *defaults.max_length > 1) {
      opened->default_sampling_.max_new_tokens = static_cast<int>(*defaults.max_length) - 1;
    }
  }
  for (const std::string& key : defaults.unsupported) {
    opened->info_.notes.push_back(str("generation_config.json: ", key, " is not supported"));
  }
  auto weights = std::make_shared<runtime::Weights>(file, *device);
  opened->loaded_ = std::make_shared<const runtime::LoadedEngine>(
      runtime::LoadedEngine{file, device, std::move(weights), opened->decoder_start_token_id_});
  return opened;
}

EngineInfo Engine::build(const std::string& model, const std::string& path,
                         const EngineOptions& options) {
  const auto start = Clock::now();
  const std::shared_ptr<device::Device> device = open_device(options);
  if (std::filesystem::is_regular_file(model)) {
    throw_bad_input("an engine is built from a model folder, not from a file", model,
                    "give the folder that holds config.json");
  }
  const api::ModelSource source = api::ModelSource::open(model, options.dummy_weights.has_value());
  Built built = compile(model, source, api::build_options(options, source), *device);
  const runtime::WeightReader reader(built.engine);
  engine::write_engine(built.engine, path, [&](const engine::Weight& weight, std::string* bytes) {
    bytes->resize(static_cast<size_t>(runtime::weight_bytes(weight)));
    reader.read_rows(weight, 0, weight.shape[0], reinterpret_cast<std::byte*>(bytes->data()));
  });
  reader.check_intact();
  EngineInfo info;
  describe(built.engine, &info);
  report(built.report, &info);
  info.build_s = seconds_since(start);
  return info;
}

}  // namespace millrace
