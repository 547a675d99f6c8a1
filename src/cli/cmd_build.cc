// millrace build: a model folder into an engine file.
#include <cstdio>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/model_options.h"

namespace millrace::cli {
namespace {

struct BuildOptions {
  ModelOptions model;
  std::string output;
  std::vector<std::string> disabled;
  std::optional<int64_t> num_beams;
  bool json = false;
};

int run(BuildOptions& o) {
  o.model.finish();
  if (o.output.empty()) throw_bad_input("no output file was given", "-o", "give -o FILE.engine");
  o.model.engine.disabled_passes = o.disabled;
  o.model.engine.max_beam_width = positive(o.num_beams, 0, "--num-beams");
  const EngineInfo info = Engine::build(o.model.model, o.output, o.model.engine);
  if (!o.model.quiet) {
    for (const std::string& note : info.notes) {
      std::fprintf(stderr, "millrace: note: %s\n", note.c_str());
    }
    std::fprintf(
        stderr,
        "%s: %s, %.1f M parameters, %s weights, %s KV cache, for %s (%s)\n"
        "limits: %lld requests of at most %lld beams, %lld tokens a sequence, %lld tokens a step\n",
        info.model.c_str(), info.architecture.c_str(), static_cast<double>(info.parameters) / 1e6,
        info.dtype.c_str(), info.kv_dtype.c_str(), info.device.c_str(), info.device_name.c_str(),
        static_cast<long long>(info.max_batch_size), static_cast<long long>(info.max_beam_width),
        static_cast<long long>(info.max_seq_len), static_cast<long long>(info.max_num_tokens));
    for (const auto& [name, ms] : info.build_times_ms) {
      std::fprintf(stderr, "  %-24s %8.1f ms\n", name.c_str(), ms);
    }
    std::fprintf(stderr, "arena: context %s, generation %s\n",
                 format_bytes(info.context_arena_bytes).c_str(),
                 format_bytes(info.generation_arena_bytes).c_str());
    std::fprintf(stderr, "built in %.2f s\n", info.build_s);
  }
  std::puts(o.output.c_str());
  return 0;
}

}  // namespace

void add_build(Program& program) {
  auto options = std::make_shared<BuildOptions>();
  Command command = program.command("build", "compile a model folder into an engine file");
  BuildOptions& o = *options;
  o.model.declare(command);
  command.group("Build")
      .option("-o,--output", &o.output, "the engine file")
      .option("--num-beams", &o.num_beams,
              "most beams of a request; default: generation_config.json's")
      .option("--dump-graph", &o.model.engine.dump_graph, "write the graph after each pass to DIR")
      .option("--disable-pass", &o.disabled, "leave a pass out, may be given several times")
      .bytes("--max-build-memory", &o.model.engine.max_build_memory,
             "most memory of a tactic's trial; default 1GiB, on a GPU 2GiB")
      .option("--timing-cache", &o.model.engine.timing_cache,
              "file that keeps measured times; default: none, all are measured");
  command.footer("Example:\n  millrace build models/novelist-14m -o novelist.engine");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
