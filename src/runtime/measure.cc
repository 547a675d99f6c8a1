#include "runtime/measure.h"

#include <algorithm>

#include "base/error.h"

namespace millrace::runtime {
namespace {

constexpr int kRuns = 5;
constexpr int kTokensPerBlock = 64;

std::unique_ptr<GraphStepper> make_stepper(const std::shared_ptr<const LoadedEngine>& engine,
                                           int sequences, int length) {
  const engine::Manifest& m = engine->engine().manifest;
  StepperOptions options;
  options.max_seq_len = length;
  options.kv_dtype = *ir::parse_dtype(m.kv_dtype);
  const int blocks = (length + kTokensPerBlock - 1) / kTokensPerBlock;
  for (size_t g = 0; g < engine->engine().kv_groups.size(); ++g) {
    options.kv.push_back({int64_t{sequences} * blocks, kTokensPerBlock});
  }
  options.limits = {.max_sequences = sequences,
                    .max_num_tokens = static_cast<int>(m.max_num_tokens),
                    .max_logit_rows = std::max(1, sequences),
                    .max_blocks = blocks,
                    .num_groups = static_cast<int>(engine->engine().kv_groups.size())};
  return std::make_unique<GraphStepper>(engine, options);
}

// A step as the options describe it; all sequences are alike.
struct StepSize {
  int sequences = 0;
  int tokens = 0;  // of a sequence, in this step
  int length = 0;  // of a sequence, after this step
  int blocks() const { return (length + kTokensPerBlock - 1) / kTokensPerBlock; }
};

StepSize step_size(const MeasureOptions& options) {
  const bool context = options.regime == Regime::kContext;
  const int tokens = context ? options.rows : 1;
  return {context ? 1 : options.rows, tokens, options.past_length + tokens};
}

// Runs the step and returns the times of each launch, none for launches that such a step leaves
// out.
std::vector<std::vector<double>> run_step(GraphStepper& stepper, const MeasureOptions& options,
                                          size_t groups, device::Device& device) {
  std::vector<std::vector<double>> times(static_cast<size_t>(stepper.program().num_launches()));
  std::vector<Program::Observation> observations;
  stepper.program().observations = &observations;
  const StepSize size = step_size(options);
  const bool context = options.regime == Regime::kContext;
  const std::vector<int32_t> ids(static_cast<size_t>(size.tokens), 1);
  // An input as long as the output: its blocks are those of the other groups.
  const auto encoder_length =
      static_cast<int>(std::min<int64_t>(size.length, stepper.engine().manifest.max_encoder_len));
  std::vector<std::vector<BlockList>> blocks(static_cast<size_t>(size.sequences));
  Batch batch;
  for (int s = 0; s < size.sequences; ++s) {
    BlockList list;
    for (int b = 0; b < size.blocks(); ++b)
      list.push_back(s * size.blocks() + b);
    blocks[static_cast<size_t>(s)].assign(groups, list);
    SequenceOptions sequence;
    sequence.prompt_length = context ? size.tokens : options.past_length;
    stepper.begin_sequence(s, sequence);
    batch.sequences.push_back({.slot = s,
                               .is_context = context,
                               .past_length = options.past_length,
                               .tokens = ids,
                               .blocks = blocks[static_cast<size_t>(s)],
                               .sample = true,
                               .targets = {},
                               .encoder_length = encoder_length});
  }
  for (int run = 0; run < (options.measure ? kRuns + 1 : 1); ++run) {
    if (run == 1) {  // the first run warmed up
      for (auto& t : times)
        t.clear();
    }
    observations.clear();
    // Launches that wait in the queue run without the host's pauses between them.
    const auto hold = run == 0 ? nullptr : device.hold();
    stepper.launch(batch);
    if (hold) hold->release();
    stepper.collect();
    for (const Program::Observation& o : observations) {
      times[static_cast<size_t>(o.launch)].push_back(1e6 * o.end->seconds_since(*o.begin));
    }
  }
  stepper.program().observations = nullptr;
  return times;
}

}  // namespace

std::vector<MeasuredLaunch> measure_step(const std::shared_ptr<const LoadedEngine>& engine,
                                         const MeasureOptions& options) {
  const StepSize size = step_size(options);
  if (size.length > engine->engine().manifest.max_seq_len) {
    throw_bad_input(str(size.length, " tokens exceed the engine's sequences of ",
                        engine->engine().manifest.max_seq_len),
                    engine->engine().manifest.model, "choose fewer");
  }
  const std::unique_ptr<GraphStepper> stepper = make_stepper(engine, size.sequences, size.length);
  std::vector<std::vector<double>> times =
      run_step(*stepper, options, engine->engine().kv_groups.size(), *engine->device);

  ir::Bindings sizes;
  for (const auto& [name, value] :
       {std::pair<const char*, int64_t>{"T", int64_t{size.sequences} * size.tokens},
        {"S", size.sequences},
        {"L", size.sequences},
        {"R", size.sequences},
        {"N", size.length},
        {"M", size.blocks()}}) {
    sizes.set(name, value);
  }
  std::vector<MeasuredLaunch> result;
  for (size_t i = 0; i < times.size(); ++i) {
    if (times[i].empty()) continue;
    Program::Description d = stepper->program().describe(static_cast<int>(i), sizes);
    MeasuredLaunch m{d.op->name, d.tactic->name, d.scope, {}, d.in, d.out, d.cost, 0};
    ops::Launch launch;
    launch.in = m.in;
    launch.out = m.out;
    launch.attributes = d.attributes.get();
    for (const ops::Tactic& tactic : d.op->tactics) {
      if (&tactic == d.tactic || tactic.device != engine->device->properties().kind) continue;
      const std::string why =
          tactic.why_not == nullptr ? "" : tactic.why_not(launch, engine->device->properties());
      m.why_not.emplace_back(tactic.name, why.empty() ? "slower, or later in preference" : why);
    }
    if (options.measure) {
      std::nth_element(times[i].begin(), times[i].begin() + kRuns / 2, times[i].end());
      m.time_us = times[i][kRuns / 2];
    }
    result.push_back(std::move(m));
  }
  return result;
}

}  // namespace millrace::runtime
