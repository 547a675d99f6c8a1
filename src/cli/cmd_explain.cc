// millrace explain: for each operation of an engine its shapes, tactic and why not the others,
// bytes, FLOPs and what the device's ceilings allow; with --measure its time.
#include <algorithm>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "ops/harness/ceilings.h"
#include "runtime/measure.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ExplainOptions {
  ModelOptions model;
  std::optional<int64_t> rows, context, batch_size;
  bool measure = false, json = false;
};

// A dash where nothing was measured.
std::string time_text(double time_us) {
  char text[32] = "-";
  if (time_us > 0) std::snprintf(text, sizeof text, "%.1f", time_us);
  return text;
}

std::string share_text(double ceiling_us, double time_us) {
  char text[32] = "-";
  if (time_us > 0) std::snprintf(text, sizeof text, "%.1f%%", 100 * ceiling_us / time_us);
  return text;
}

std::string shape_text(const ops::Tensor& t) {
  if (t.dtype == ir::DType::kState) return "kv cache";
  const std::vector<int64_t> dims(t.dims.begin(), t.dims.begin() + t.rank);
  return str(ir::dtype_name(t.dtype), "[", join(dims, ", "), "]");
}

// Operands that matter to a reader: the bookkeeping of sequences is the same everywhere.
std::vector<std::string> shapes(const runtime::MeasuredLaunch& launch) {
  std::vector<std::string> texts;
  for (const ops::Tensor& t : launch.in) {
    if (t.dtype != ir::DType::kI32) texts.push_back(shape_text(t));
  }
  texts.emplace_back("->");
  for (const ops::Tensor& t : launch.out) {
    if (t.dtype != ir::DType::kState) texts.push_back(shape_text(t));
  }
  return texts;
}

Json to_json(const runtime::MeasuredLaunch& launch, const std::string& regime, int64_t rows,
             double ceiling_us) {
  Json why_not = Json::object();
  for (const auto& [tactic, why] : launch.why_not)
    why_not[tactic] = why;
  Json line = {{"regime", regime},
               {"rows", rows},
               {"op", launch.op},
               {"name", launch.scope},
               {"tactic", launch.tactic},
               {"shapes", shapes(launch)},
               {"bytes", static_cast<int64_t>(launch.cost.bytes)},
               {"flops", static_cast<int64_t>(launch.cost.flops)},
               {"why_not", std::move(why_not)},
               {"ceiling_us", ceiling_us}};
  if (launch.with_next > 0) line["with_next"] = launch.with_next;
  if (launch.time_us > 0) {
    line["time_us"] = launch.time_us;
    line["ceiling_share"] = ceiling_us / launch.time_us;
  }
  return line;
}

// `name`: encoder, context or generation.
void explain(const Engine& engine, const ExplainOptions& o, const ops::Ceilings& ceilings,
             const std::string& name, int64_t rows) {
  const bool generates = name == "generation";
  const int64_t default_past = std::min<int64_t>(128, engine.info().max_seq_len - 1);
  runtime::MeasureOptions options{
      .regime = generates ? runtime::Regime::kGeneration : runtime::Regime::kContext,
      .rows = static_cast<int>(rows),
      .past_length =
          static_cast<int>(generates ? not_negative(o.context, default_past, "--context") : 0),
      .measure = o.measure,
      .encoder = name == "encoder"};
  const std::vector<runtime::MeasuredLaunch> launches =
      runtime::measure_step(engine.loaded(), options);
  const device::Kind kind = engine.loaded()->device->properties().kind;
  double total = 0, floor = 0;
  if (!o.json) {
    std::printf("%s, %lld rows\n%10s %10s %8s %8s %8s  %s\n", name.c_str(),
                static_cast<long long>(rows), "time us", "roof us", "of roof", "MB", "MFLOP",
                "operation");
  }
  for (const runtime::MeasuredLaunch& launch : launches) {
    const ir::DType x = launch.in.empty() ? ir::DType::kF32 : launch.in[0].dtype;
    const double ceiling_us =
        1e6 * ops::lower_bound(launch.cost, {kind, launch.tactic, x}, ceilings).seconds;
    total += launch.time_us;
    floor += ceiling_us;
    if (o.json) {
      std::puts(json_line(to_json(launch, name, rows, ceiling_us)).c_str());
      continue;
    }
    const std::string chain =
        launch.with_next > 0 ? str(" (with the next ", launch.with_next, ")") : "";
    std::printf("%10s %10.1f %8s %8.2f %8.1f  %s%s %s  %s\n", time_text(launch.time_us).c_str(),
                ceiling_us, share_text(ceiling_us, launch.time_us).c_str(), launch.cost.bytes / 1e6,
                launch.cost.flops / 1e6, launch.tactic.c_str(), chain.c_str(), launch.scope.c_str(),
                join(shapes(launch), " ").c_str());
    for (const auto& [tactic, why] : launch.why_not) {
      std::printf("%49s not %s: %s\n", "", tactic.c_str(), why.c_str());
    }
  }
  if (!o.json) {
    std::printf("%10s %10.1f %8s  all\n\n", time_text(total).c_str(), floor,
                share_text(floor, total).c_str());
  }
}

int run(ExplainOptions& o) {
  o.model.finish();
  const std::shared_ptr<Engine> engine = o.model.open();
  const ops::Ceilings ceilings = ops::measure_ceilings(*engine->loaded()->device);
  if (!o.json) {
    std::printf("%s: %.1f GB/s read, %.1f GFLOP/s fp32, %.1f GFLOP/s bf16, measured now\n\n",
                engine->info().device_name.c_str(), ceilings.read_gb_per_s,
                ceilings.fma_gflop_per_s, ceilings.bf16_gflop_per_s);
  }
  const int64_t limit = std::min(engine->info().max_num_tokens, engine->info().max_seq_len);
  const int64_t encoder_rows = engine->info().max_encoder_len;
  if (encoder_rows > 0) {
    explain(*engine, o, ceilings, "encoder",
            engine->info().encoder_features > 0
                ? encoder_rows
                : positive(o.rows, std::min<int64_t>(512, encoder_rows), "--rows"));
  }
  explain(*engine, o, ceilings, "context",
          positive(o.rows, std::min<int64_t>(512, limit), "--rows"));
  if (engine->info().kind == "encoder") return 0;  // nothing is generated
  const int64_t sequences = positive(o.batch_size, 1, "--batch-size");
  if (sequences > engine->info().max_batch_size) {
    throw_bad_input(str("the engine has at most ", engine->info().max_batch_size, " requests"),
                    "--batch-size", "choose fewer, or raise --max-batch-size");
  }
  explain(*engine, o, ceilings, "generation", sequences);
  return 0;
}

}  // namespace

void add_explain(Program& program) {
  auto options = std::make_shared<ExplainOptions>();
  ExplainOptions& o = *options;
  Command command = program.command("explain", "each operation: tactic, bytes, FLOPs, roofline");
  o.model.declare(command);
  command.group("Measurement")
      .option("--rows", &o.rows, "prompt tokens of the context step; default 512")
      .option("--batch-size", &o.batch_size, "requests of the generation step; default 1")
      .option("--context", &o.context, "tokens before the generation step; default 128")
      .bytes("--max-build-memory", &o.model.engine.max_build_memory,
             "choose tactics anew, with at most so much memory for a tactic's trial")
      .flag("--measure", &o.measure, "run the step and time each operation")
      .flag("--json", &o.json, "one line of JSON for each operation");
  command.run([options] { return run(*options); });
}

}  // namespace millrace::cli
