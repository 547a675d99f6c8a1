// millrace bench latency | throughput: a model's speed, with random prompts.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json.h"
#include "cli/bench_op.h"
#include "cli/commands.h"
#include "cli/model_options.h"

namespace millrace::cli {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct BenchOptions {
  ModelOptions model;
  std::optional<int64_t> input_len, output_len, batch_size, num_iters, warmup, num_prompts;
  bool json = false;
};

// Random ids, never an end token's effect: lengths are what was asked for.
std::vector<GenerationRequest> random_requests(const Engine& engine, int64_t count, int64_t input,
                                               int64_t output, std::mt19937_64& random) {
  std::uniform_int_distribution<int32_t> ids(0, static_cast<int32_t>(engine.info().vocab_size) - 1);
  std::vector<GenerationRequest> requests(static_cast<size_t>(count));
  for (GenerationRequest& request : requests) {
    for (int64_t i = 0; i < input; ++i)
      request.input_ids.push_back(ids(random));
    request.sampling.max_new_tokens = static_cast<int>(output);
    request.sampling.ignore_eos = true;
  }
  return requests;
}

// Order statistics of at least one value.
Json summary(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    const auto last = static_cast<double>(values.size() - 1);
    return values[static_cast<size_t>(std::lround(q * last))];
  };
  const double mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  return {{"mean", mean}, {"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}};
}

std::string print(const Json& json) {
  return json_line(json);
}

struct Times {
  std::vector<double> latency, first_token, token;
  // By step, without the first of each run, which has the prompts.
  std::vector<double> device, idle, host, launches;
  int64_t steps = 0, replayed = 0;  // of all runs

  void add(const std::vector<StepTimes>& of_run) {
    steps += static_cast<int64_t>(of_run.size());
    for (const StepTimes& step : of_run)
      replayed += step.replayed ? 1 : 0;
    for (size_t i = 1; i < of_run.size(); ++i) {
      device.push_back(of_run[i].device_s);
      idle.push_back(of_run[i].idle_s);
      host.push_back(of_run[i].host_s);
      launches.push_back(of_run[i].launches);
    }
  }
};

void run_once(GenerationSession& session, const std::vector<GenerationRequest>& requests,
              Times* times) {
  const auto start = Clock::now();
  DecodeStream stream = session.decode_stream(requests);
  double first = 0, last = 0;
  int steps = 0;
  while (const auto added = stream.next()) {
    if (added->empty()) continue;
    last = std::chrono::duration<double>(Clock::now() - start).count();
    if (steps++ == 0) first = last;
  }
  if (times == nullptr) return;
  times->latency.push_back(last);
  times->first_token.push_back(first);
  if (steps > 1) times->token.push_back((last - first) / (steps - 1));
  times->add(session.stats().step_times);
}

// Of encoder-decoder models the encoder reads the input, the decoder begins with one token.
SetupOptions setup_for(const ModelOptions& model, const Engine& engine, int64_t batch,
                       int64_t input, int64_t output) {
  const EngineInfo& info = engine.info();
  if (info.kind == "encoder" || info.encoder_features > 0) {
    throw_bad_input("what is measured are models that read text and write it", info.model,
                    "use another model");
  }
  SetupOptions setup = model.setup();
  setup.batch_size = static_cast<int>(batch);
  setup.max_context_length = info.kind == "encoder_decoder" ? 1 : static_cast<int>(input);
  setup.max_encoder_length = info.kind == "encoder_decoder" ? static_cast<int>(input) : 0;
  setup.max_new_tokens = static_cast<int>(output);
  return setup;
}

int run_latency(BenchOptions& o) {
  o.model.finish();
  const int64_t input = positive(o.input_len, 32, "--input-len");
  const int64_t output = positive(o.output_len, 128, "--output-len");
  const int64_t batch = positive(o.batch_size, 1, "--batch-size");
  const int64_t iterations = positive(o.num_iters, 5, "--num-iters");
  const int64_t warmup = not_negative(o.warmup, 1, "--warmup");
  const std::shared_ptr<Engine> engine = o.model.open();
  GenerationSession session(engine);
  session.setup(setup_for(o.model, *engine, batch, input, output));
  std::mt19937_64 random(1);
  Times times;
  int64_t captures_before = 0;  // by the runs that warm up
  for (int64_t i = 0; i < warmup + iterations; ++i) {
    if (i == warmup) captures_before = session.stats().captures;
    // Fresh prompts: a repeated one would find its keys and values in the cache.
    run_once(session, random_requests(*engine, batch, input, output, random),
             i < warmup ? nullptr : &times);
  }
  Json line = {{"input_len", input},
               {"output_len", output},
               {"batch_size", batch},
               {"iterations", iterations},
               {"latency_s", summary(times.latency)},
               {"first_token_s", summary(times.first_token)}};
  double rate = 0;  // after the first token
  if (!times.token.empty()) {
    line["token_s"] = summary(times.token);
    rate = static_cast<double>(batch) / line["token_s"]["p50"].get<double>();
  }
  line["output_tokens_per_s"] = rate;
  line["latencies_s"] = times.latency;
  if (!times.device.empty()) {
    line["step"] = {{"device_s", summary(times.device)},
                    {"idle_s", summary(times.idle)},
                    {"host_s", summary(times.host)},
                    {"launches", summary(times.launches)}};
  }
  const SessionStats stats = session.stats();
  line["graphs"] = {{"steps", times.steps},
                    {"replayed", times.replayed},
                    {"captures", stats.captures - captures_before}};
  if (stats.taken_by_setup > 0) {
    line["memory"] = {{"planned_bytes", stats.weights_copied + stats.session_bytes()},
                      {"taken_by_setup_bytes", stats.taken_by_setup},
                      {"taken_bytes", stats.taken}};
  }
  if (o.json) {
    std::puts(print(line).c_str());
    return 0;
  }
  std::printf(
      "batch %lld, %lld in, %lld out, median of %lld: first token %.2f ms, then %.1f tokens/s "
      "(%.3f ms a step), in all %.1f ms\n",
      static_cast<long long>(batch), static_cast<long long>(input), static_cast<long long>(output),
      static_cast<long long>(iterations), line["first_token_s"]["p50"].get<double>() * 1e3, rate,
      rate > 0 ? static_cast<double>(batch) / rate * 1e3 : 0,
      line["latency_s"]["p50"].get<double>() * 1e3);
  return 0;
}

int run_throughput(BenchOptions& o) {
  o.model.finish();
  const int64_t input = positive(o.input_len, 128, "--input-len");
  const int64_t output = positive(o.output_len, 128, "--output-len");
  const int64_t prompts = positive(o.num_prompts, 16, "--num-prompts");
  const std::shared_ptr<Engine> engine = o.model.open();
  const int64_t wanted = std::min(positive(o.batch_size, prompts, "--batch-size"), prompts);
  GenerationSession session(engine);
  SetupOptions setup =
      setup_for(o.model, *engine, std::min(wanted, engine->info().max_batch_size), input, output);
  if (!o.batch_size) setup.batch_size = session.batch_that_fits(setup);
  session.setup(setup);
  const int64_t batch = setup.batch_size;
  std::mt19937_64 random(1);
  const auto requests = random_requests(*engine, prompts, input, output, random);
  run_once(session, random_requests(*engine, 1, input, 1, random), nullptr);  // warm up
  const auto start = Clock::now();
  for (int64_t begin = 0; begin < prompts; begin += batch) {
    const auto first = requests.begin() + begin;
    run_once(session, {first, first + std::min(batch, prompts - begin)}, nullptr);
  }
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  const Json line = {
      {"num_prompts", prompts},
      {"input_tokens", prompts * input},
      {"output_tokens", prompts * output},
      {"elapsed_s", elapsed},
      {"requests_per_s", static_cast<double>(prompts) / elapsed},
      {"total_tokens_per_s", static_cast<double>(prompts * (input + output)) / elapsed},
      {"output_tokens_per_s", static_cast<double>(prompts * output) / elapsed}};
  if (o.json) {
    std::puts(print(line).c_str());
  } else {
    std::printf(
        "%lld prompts of %lld in, %lld out, %lld at a time: %.2f s, %.1f new tokens/s, "
        "%.1f tokens/s in all\n",
        static_cast<long long>(prompts), static_cast<long long>(input),
        static_cast<long long>(output), static_cast<long long>(batch), elapsed,
        line["output_tokens_per_s"].get<double>(), line["total_tokens_per_s"].get<double>());
  }
  return 0;
}

}  // namespace

void add_bench(Program& program) {
  Command bench = program.command("bench", "measure a model or the operations");
  auto options = std::make_shared<BenchOptions>();
  BenchOptions& o = *options;
  Command latency = bench.command("latency", "a static batch: time to first token, tokens/s");
  o.model.declare(latency);
  latency.group("Measurement")
      .option("--input-len", &o.input_len, "prompt tokens; default 32")
      .option("--output-len", &o.output_len, "new tokens; default 128")
      .option("--batch-size", &o.batch_size, "requests; default 1")
      .option("--num-iters", &o.num_iters, "measured runs; default 5")
      .option("--warmup", &o.warmup, "runs before them; default 1")
      .flag("--json", &o.json, "as JSON");
  latency.run([options] { return run_latency(*options); });

  auto more = std::make_shared<BenchOptions>();
  Command throughput = bench.command("throughput", "many prompts: tokens/s over all");
  more->model.declare(throughput);
  throughput.group("Measurement")
      .option("--num-prompts", &more->num_prompts, "default 16")
      .option("--input-len", &more->input_len, "prompt tokens; default 128")
      .option("--output-len", &more->output_len, "new tokens; default 128")
      .option("--batch-size", &more->batch_size,
              "requests at a time; default: all, or as many as memory holds")
      .flag("--json", &more->json, "as JSON");
  throughput.run([more] { return run_throughput(*more); });

  add_bench_op(bench);
}

}  // namespace millrace::cli
