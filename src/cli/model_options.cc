#include "cli/model_options.h"

#include <cstdio>
#include <limits>

#include "base/error.h"
#include "base/log.h"

namespace millrace::cli {

namespace {

// Sizes are 32-bit numbers from here on.
void check_size(const std::optional<int64_t>& value, const std::string& flag) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  if (value && *value > kMost) {
    throw_bad_input(str(*value, " is too large"), flag, str("give at most ", kMost));
  }
}

}  // namespace

int64_t not_negative(const std::optional<int64_t>& value, int64_t fallback,
                     const std::string& flag) {
  check_size(value, flag);
  if (value && *value < 0) {
    throw_bad_input(str(*value, " is negative"), flag, "give 0 or more");
  }
  return value.value_or(fallback);
}

int64_t positive(const std::optional<int64_t>& value, int64_t fallback, const std::string& flag) {
  check_size(value, flag);
  if (value && *value < 1) throw_bad_input(str(*value, " is too small"), flag, "give 1 or more");
  return value.value_or(fallback);
}

void ModelOptions::declare(Command& command) {
  command.positional("MODEL", &model,
                     "a folder as published on Hugging Face, the id of one in the local hub cache, "
                     "or an engine file");
  command.group("Model and device")
      .option("--device", &engine.device, "auto, cpu or cuda[:N]; auto: a GPU if there is one")
      .option("--dtype", &engine.dtype,
              "arithmetic and weight type: auto (the checkpoint's), fp32, bf16, fp16")
      .option("--kv-dtype", &engine.kv_dtype,
              "storage of the KV cache: auto (that of --dtype), fp32, bf16, fp16, fp8, int8")
      .option("--threads", &threads, "CPU threads; default: what this process may use")
      .optional_value("--dummy-weights", &engine.dummy_weights,
                      "generate the weights (=SEED); only config.json is needed")
      .flag("--deterministic", &deterministic,
            "batch-invariant arithmetic: a request's numbers never depend on its batch")
      .option("--attention-window", &window, "sliding window, for models that bring none")
      .option("--sink-tokens", &sink_tokens, "tokens that stay visible in front of the window");
  command.group("Limits")
      .option("--max-batch-size", &max_batch_size, "requests of a step; default 256")
      .option("--max-seq-len", &max_seq_len, "tokens of a sequence; default: the model's")
      .option("--max-num-tokens", &max_num_tokens, "tokens of a step; default 8192")
      .bytes("--kv-memory", &kv_memory,
             "size of the KV pool (8GiB); default: what is needed; refused where that is more")
      .option("--tokens-per-block", &tokens_per_block, "KV block size, a power of two; default 64");
  command.group("Program")
      .option("--cache-dir", &engine.cache_dir, "engine cache; default $XDG_CACHE_HOME/millrace")
      .flag("--no-cache", &no_cache, "neither use nor keep a compiled engine")
      .flag("--quiet", &quiet, "no progress, notes or statistics")
      .option("--log-level", &log_level, "debug, info, warning, error, off");
  command.group("Options");
}

void ModelOptions::finish() {
  log::Level level{};
  if (!log::parse_level(log_level, &level)) {
    throw_bad_input(str("unknown level '", log_level, "'"), "--log-level",
                    "use debug, info, warning, error or off");
  }
  log::set_level(quiet ? std::max(level, log::Level::kError) : level);
  engine.max_batch_size = positive(max_batch_size, 0, "--max-batch-size");
  engine.max_seq_len = positive(max_seq_len, 0, "--max-seq-len");
  engine.max_num_tokens = positive(max_num_tokens, 0, "--max-num-tokens");
  engine.threads = static_cast<int>(positive(threads, 0, "--threads"));
  engine.attention_window = static_cast<int>(positive(window, 0, "--attention-window"));
  engine.sink_tokens = static_cast<int>(not_negative(sink_tokens, 0, "--sink-tokens"));
  if (engine.sink_tokens > 0 && engine.attention_window == 0) {
    throw_bad_input("sinks need a window", "--sink-tokens", "give --attention-window too");
  }
  if (no_cache && !engine.cache_dir.empty()) {
    throw_bad_input("--no-cache and --cache-dir contradict each other", "", "give one of the two");
  }
  engine.use_cache = !no_cache;
  engine.deterministic = deterministic;
}

std::shared_ptr<Engine> ModelOptions::open() {
  std::shared_ptr<Engine> opened = Engine::open(model, engine);
  const EngineInfo& info = opened->info();
  if (!quiet) {
    const std::string limits = str(info.dtype, " weights, ", info.kv_dtype, " KV cache; at most ",
                                   info.max_batch_size, " requests, ", info.max_seq_len,
                                   " tokens a sequence, ", info.max_num_tokens, " tokens a step");
    std::fprintf(stderr, "millrace: %s\n", limits.c_str());
    if (!info.build_times_ms.empty()) {
      std::fprintf(stderr, "millrace: built in %.2f s, %.2f s of it tactics: %s\n", info.build_s,
                   info.tactics_s,
                   str(info.tactics_timed, " timed, ", info.tactics_known, " known").c_str());
    }
    for (const std::string& note : info.notes) {
      std::fprintf(stderr, "millrace: note: %s\n", note.c_str());
    }
  }
  return opened;
}

SetupOptions ModelOptions::setup() const {
  SetupOptions setup;
  setup.kv_memory = kv_memory;
  setup.tokens_per_block =
      static_cast<int>(positive(tokens_per_block, setup.tokens_per_block, "--tokens-per-block"));
  return setup;
}

}  // namespace millrace::cli
