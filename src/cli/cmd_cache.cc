// millrace cache: the engines kept for model folders.
#include <cstdio>
#include <ctime>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/args.h"
#include "cli/commands.h"
#include "engine/engine_cache.h"
#include "engine/engine_file.h"

namespace millrace::cli {
namespace {

struct CacheOptions {
  std::string action, folder;
  bool json = false;
};

// The model an entry was made of; empty when it cannot be read.
std::string model_of(const engine::CacheEntry& entry) {
  try {
    return engine::EngineFile::open(entry.path)->engine().manifest.model;
  } catch (const Error&) {
    return "";
  }
}

int list(const engine::EngineCache& cache, bool json) {
  for (const engine::CacheEntry& entry : cache.list()) {
    const std::string model = model_of(entry);
    char when[32];
    const std::time_t used = entry.used_ns / 1000000000;
    std::tm utc{};
    std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&used, &utc));
    if (json) {
      const nlohmann::ordered_json line = {{"key", entry.key},
                                           {"path", entry.path},
                                           {"model", model},
                                           {"bytes", entry.bytes},
                                           {"last_used", entry.used_ns / 1000000000}};
      std::puts(json_line(line).c_str());
      continue;
    }
    std::printf("%s  %10s  %s  %s\n", entry.key.c_str(), format_bytes(entry.bytes).c_str(), when,
                model.empty() ? "(cannot be read)" : model.c_str());
  }
  return 0;
}

int run(const CacheOptions& o) {
  const engine::EngineCache cache(o.folder);
  if (o.action == "list") return list(cache, o.json);
  if (o.action != "clear") {
    throw_bad_input(str("unknown action '", o.action, "'"), "millrace cache", "use list or clear");
  }
  const int64_t removed = cache.clear();
  if (o.json) {
    std::printf("{\"removed\":%lld}\n", static_cast<long long>(removed));
  } else {
    std::printf("%lld engines removed from %s\n", static_cast<long long>(removed),
                cache.folder().c_str());
  }
  return 0;
}

}  // namespace

void add_cache(Program& program) {
  auto options = std::make_shared<CacheOptions>();
  Command command = program.command("cache", "list or clear the engine cache");
  command.positional("ACTION", &options->action, "list or clear")
      .option("--cache-dir", &options->folder, "engine cache; default $XDG_CACHE_HOME/millrace")
      .flag("--json", &options->json, "one line of JSON for each engine");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
